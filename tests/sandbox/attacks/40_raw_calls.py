# threat: calls the C library past Python, to read a file
# expect: ok, error
# weak: secret
import ctypes

library = ctypes.CDLL(None)
text = ctypes.create_string_buffer(100)
file = library.open((CANARY + "/secret.txt").encode(), 0)
library.read(file, text, 100)
print(text.value.decode())
