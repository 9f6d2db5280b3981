# threat: a hundred busy threads
# expect: error
# weak: time
import threading


def spin():
    while True:
        pass


threads = [threading.Thread(target=spin, daemon=True) for _ in range(100)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
