# threat: writes a new file and appends to one of the host's
# expect: error
# weak: files
open(CANARY + "/new.txt", "w").write("I was here")
open(CANARY + "/keep.txt", "a").write("and here")
