# threat: overflows the stack of the interpreter itself
# expect: killed, error
# weak: harmless: CPython counts its own calls in C and raises RecursionError
class Mirror:
    def __repr__(self):
        return repr(self)


print(Mirror())
