# threat: changes what other programs will use
# expect: ok, error
# weak: next
import builtins
import math

import sympy

math.sqrt = lambda x: 666
sympy.solve = lambda *_: "nothing"
builtins.sum = lambda *_: 666
