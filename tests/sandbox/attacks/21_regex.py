# threat: one call of the regular expression engine that takes for ever
# expect: timeout
# weak: time
import re

print(re.match("(a+)+$", "a" * 60 + "b"))
