# threat: takes memory that is not counted as its own
# expect: error
# weak: memory
import os

file = os.memfd_create("hoard")
for _ in range(MIB):
    os.write(file, b"x" * (1 << 20))
