# threat: catches everything that is thrown at it and goes on
# expect: timeout
# weak: time
while True:
    try:
        while True:
            pass
    except BaseException:
        continue
