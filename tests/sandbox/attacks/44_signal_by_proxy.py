# threat: lets the kernel send the signal: the owner of a descriptor is told of input
# expect: ok, error
# weak: trainer
import fcntl
import os
import signal
import socket

ours, theirs = socket.socketpair()
fcntl.fcntl(ours, fcntl.F_SETOWN, os.getppid())
fcntl.fcntl(ours, 10, signal.SIGKILL)  # F_SETSIG
fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
theirs.send(b"x")
