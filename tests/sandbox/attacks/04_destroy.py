# threat: deletes, renames, truncates, links and changes the rights of the host's files
# expect: ok
# weak: files
import os
import shutil

keep = CANARY + "/keep.txt"
for harm in (
    lambda: os.chmod(keep, 0o777),
    lambda: os.utime(keep, (0, 0)),
    lambda: os.truncate(keep, 0),
    lambda: os.link(keep, CANARY + "/link"),
    lambda: os.symlink(keep, CANARY + "/symlink"),
    lambda: os.rename(keep, CANARY + "/other.txt"),
    lambda: os.remove(CANARY + "/other.txt"),
    lambda: os.mkdir(CANARY + "/folder"),
    lambda: shutil.rmtree(CANARY + "/deep"),
):
    try:
        harm()
    except (OSError, AttributeError) as refusal:
        print(type(refusal).__name__)
