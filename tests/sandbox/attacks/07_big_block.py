# threat: takes more memory than allowed, in one piece
# expect: memory, timeout, error
# weak: memory
block = bytearray(b"x") * (MIB << 20)
print(len(block))
