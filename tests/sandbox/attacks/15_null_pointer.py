# threat: reads address 0: a fault that Python cannot catch
# expect: error, killed
# weak: next
import ctypes

ctypes.string_at(0)
