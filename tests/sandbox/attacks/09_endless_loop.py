# threat: never ends
# expect: timeout
# weak: time
while True:
    pass
