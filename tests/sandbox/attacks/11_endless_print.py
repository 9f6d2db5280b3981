# threat: prints for ever
# expect: timeout, memory
# weak: memory
while True:
    print("spam" * 10_000)
