# threat: stops and kills the process that started it
# expect: ok, error
# weak: trainer
import os
import signal

for name in ("SIGTERM", "SIGSTOP", "SIGKILL"):
    try:
        os.kill(os.getppid(), getattr(signal, name))
    except OSError:
        pass
