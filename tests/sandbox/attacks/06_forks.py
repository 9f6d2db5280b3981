# threat: fills the process table
# expect: error
# weak: processes
import os
import time

for _ in range(FORKS):
    if os.fork() == 0:
        time.sleep(3)
        os._exit(0)
time.sleep(0.2)
