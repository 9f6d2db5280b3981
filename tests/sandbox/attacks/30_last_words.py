# threat: acts when its objects die and when its interpreter ends
# expect: ok
# weak: files
import atexit
import os


class Heir:
    def __del__(self):
        os.close(os.open(CANARY + "/heir", os.O_CREAT | os.O_WRONLY))


atexit.register(lambda: open(CANARY + "/atexit", "w").close())
Heir()
x = Heir()
