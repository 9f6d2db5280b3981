# threat: writes to and closes every descriptor it may have inherited
# expect: ok, killed, timeout
# weak: next
import os

for descriptor in range(3, 64):
    try:
        os.write(descriptor, b"junk\n")
    except OSError as refusal:
        print(type(refusal).__name__)
    try:
        os.close(descriptor)
    except OSError as refusal:
        print(type(refusal).__name__)
