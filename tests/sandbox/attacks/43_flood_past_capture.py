# threat: prints for ever, past the cell's own capture
# expect: timeout, killed, memory
# weak: stdout
import os
import sys

while True:
    sys.__stdout__.write("spam" * 10_000)
    sys.__stdout__.flush()
    sys.__stderr__.write("spam" * 10_000)
    os.write(2, b"spam" * 10_000)
