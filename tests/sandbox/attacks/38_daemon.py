# threat: leaves a process behind that belongs to nobody
# expect: error
# weak: processes
import os
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
os.wait()
