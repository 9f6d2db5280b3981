# threat: writes the report of its own success, wherever the sandbox may listen
# expect: ok, killed
# weak: next
import json
import os
import sys

report = json.dumps(
    {"text": "FORGED", "head": "FORGED", "tail": "", "cut": 0, "error": None, "message": None, "line": None}
)
sys.__stdout__.write(report + "\n")
for descriptor in (1, *range(3, 16)):
    try:
        os.write(descriptor, (report + "\n").encode())
    except OSError as refusal:
        print(type(refusal).__name__)
