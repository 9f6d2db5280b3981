# threat: prints far more than anybody can read, at once
# expect: ok, memory, timeout
# weak: output
print("x" * (30 << 20))
