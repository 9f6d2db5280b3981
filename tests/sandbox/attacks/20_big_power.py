# threat: one call that computes for hours and never returns to Python
# expect: timeout, memory
# weak: time
print(10 ** (10**9) % 7)
