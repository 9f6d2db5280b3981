# threat: reaches os through harmless modules
# expect: ok, error
# weak: files
import random
import statistics

for module in (random, statistics):
    system = getattr(getattr(module, "_os", None) or module.sys.modules["os"], "system")
    system("touch " + CANARY + "/mark")
