# threat: writes past every capture, on what may be the trainer's own output
# expect: ok, error
# weak: stdout
import os

os.write(1, b"LEAK on 1\n")
os.write(2, b"LEAK on 2\n")
