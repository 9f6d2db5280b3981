# threat: waits for input, or steals the trainer's
# expect: error, timeout
# weak: time
print(input("Your password? "))
