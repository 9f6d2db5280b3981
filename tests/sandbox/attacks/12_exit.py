# threat: ends its interpreter without a word
# expect: killed
# weak: next
import os

os._exit(0)
