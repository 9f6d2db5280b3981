# threat: reads a secret file of the host, by every way to open one
# expect: ok, error
# weak: secret
import io
import os
import pathlib

for read in (
    lambda path: open(path).read(),
    lambda path: io.FileIO(path).read().decode(),
    lambda path: os.read(os.open(path, os.O_RDONLY), 1000).decode(),
    lambda path: pathlib.Path(path).read_text(),
    lambda path: pathlib.Path("/proc/self/root" + path).read_text(),
):
    try:
        print(read(CANARY + "/secret.txt"))
    except OSError as refusal:
        print(type(refusal).__name__)
