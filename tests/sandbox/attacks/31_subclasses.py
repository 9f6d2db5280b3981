# threat: finds os.system among the subclasses of object, where a word filter sees nothing
# expect: ok, error
# weak: files
for kind in ().__class__.__base__.__subclasses__():
    if kind.__name__ == "_wrap_close":
        kind.__init__.__globals__["sys" + "tem"]("touch " + CANARY + "/mark")
