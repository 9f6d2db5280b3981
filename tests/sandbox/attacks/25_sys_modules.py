# threat: puts modules of its own in the place of real ones
# expect: ok
# weak: next
import sys
import types

fake = types.ModuleType("math")
fake.sqrt = lambda x: 666
sys.modules["math"] = sys.modules["sympy"] = fake
sys.path.insert(0, CANARY)
