# threat: does nothing, for an hour
# expect: timeout
# weak: time
import time

time.sleep(3600)
