# threat: kills its process group, and with it whatever shares it
# expect: error
# weak: trainer
import os
import signal

os.killpg(os.getpgrp(), signal.SIGKILL)
