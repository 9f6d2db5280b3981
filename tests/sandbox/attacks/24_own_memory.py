# threat: writes into its interpreter's memory, here over the number pi
# expect: error
# weak: next
import math
import struct

with open("/proc/self/mem", "r+b", buffering=0) as memory:
    memory.seek(id(math.pi) + 16)
    memory.write(struct.pack("d", 3.0))
