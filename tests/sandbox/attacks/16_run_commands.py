# threat: starts other programs
# expect: ok
# weak: files
import os
import subprocess

mark = CANARY + "/mark"
for start in (
    lambda: subprocess.run(["touch", mark]),
    lambda: os.system("touch " + mark),
    lambda: os.popen("touch " + mark).read(),
    lambda: os.posix_spawn("/usr/bin/touch", ["touch", mark], {}),
    lambda: os.execv("/usr/bin/touch", ["touch", mark]),
):
    try:
        start()
    except (OSError, AttributeError) as refusal:
        print(type(refusal).__name__)
