# threat: stops and kills the process that started it
# expect: ok, error
# weak: trainer
import os
import signal

parent = os.getppid()  # asked once: when it has died, another process is the parent
for name in ("SIGTERM", "SIGSTOP", "SIGKILL"):
    try:
        os.kill(parent, getattr(signal, name))
    except OSError as refusal:
        print(type(refusal).__name__)
