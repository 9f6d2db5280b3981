# threat: takes more memory than allowed, little by little
# expect: memory, timeout
# weak: memory
pieces = []
while len(pieces) < MIB:
    pieces.append(bytearray(b"x") * (1 << 20))
