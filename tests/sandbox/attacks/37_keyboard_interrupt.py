# threat: raises what usually ends a program of the host
# expect: error
# weak: next
raise KeyboardInterrupt
