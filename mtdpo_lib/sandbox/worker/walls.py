"""Walls that Linux offers a process around itself: seccomp filters, Landlock, resource limits."""

import ctypes
import errno
import os
import signal
import sys
import threading
import time

CLONE_THREAD = 0x00010000
# What a worker around WebAssembly never needs once it runs: the second wall behind the runtime.
DENIED = """
    execve execveat fork vfork socket socketpair connect bind listen accept accept4 sendto sendmsg ptrace
    process_vm_readv process_vm_writev kill tkill pidfd_open pidfd_send_signal pidfd_getfd mount umount2 pivot_root chroot
    unshare setns unlink unlinkat rename renameat renameat2 rmdir mkdir mkdirat link linkat symlink symlinkat mknod mknodat
    chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat truncate ftruncate creat open_by_handle_at setxattr
    lsetxattr fsetxattr utimensat utime utimes setrlimit setuid setgid setreuid setregid setresuid setresgid capset bpf
    perf_event_open userfaultfd keyctl add_key request_key init_module finit_module delete_module kexec_load reboot swapon
    swapoff io_uring_setup io_uring_enter io_uring_register
""".split()
# All that a forked CPython needs to compute and to answer on a descriptor it already has. No file can be opened, no
# process or thread started, no signal sent, no limit changed.
ALLOWED = """
    read write readv writev close lseek brk mmap munmap mremap mprotect madvise futex sched_yield
    sched_getaffinity nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getrusage getrandom
    getpid getppid gettid getuid geteuid getgid getegid getcwd uname rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack
    restart_syscall poll ppoll select pselect6 exit exit_group rseq set_robust_list membarrier fstat
""".split()


def deny():
    """Forbid this process and its threads what the list names. Returns the walls that stand: none off Linux.

    Threads may be started, processes may not; files may be opened for reading only.
    """
    seccomp = _seccomp()
    if seccomp is None:
        return []
    wall = seccomp.SyscallFilter(seccomp.ALLOW)
    wall.set_attr(seccomp.Attr.CTL_TSYNC, 1)
    no = seccomp.ERRNO(errno.EPERM)
    for name in DENIED:
        _add(wall, no, name)
    _add(wall, seccomp.ERRNO(errno.ENOSYS), "clone3")  # its flags are out of sight; glibc falls back to clone
    _add(wall, no, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_THREAD, 0))
    for name, place in (("open", 1), ("openat", 2)):
        for flag in (os.O_WRONLY, os.O_RDWR):
            _add(wall, no, name, seccomp.Arg(place, seccomp.MASKED_EQ, os.O_ACCMODE, flag))
    wall.load()
    return ["seccomp deny-list"]


def allow_only():
    """A filter that lets through `ALLOWED` and answers EPERM to all else, ready to be loaded after a fork.

    Raises:
        OSError: no seccomp on this system.
    """
    seccomp = _seccomp()
    if seccomp is None:
        raise OSError("seccomp is missing: install libseccomp (Debian: libseccomp2) and pyseccomp, on Linux")
    wall = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in ALLOWED:
        _add(wall, seccomp.ALLOW, name)
    return wall


def _seccomp():
    """The binding, None where there is none."""
    if sys.platform != "linux":
        return None
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError, AttributeError):  # AttributeError: no libseccomp
        return None
    return pyseccomp


def _add(wall, action, name, *arguments):
    """Add a rule; a name this architecture or library does not know needs none."""
    import pyseccomp

    try:
        pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    except (OSError, ValueError, RuntimeError):
        return
    wall.add_rule(action, name, *arguments)


def end_with_parent(parent):
    """A parent that is killed cannot say goodbye: this process ends when the one with the number `parent` is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it was gone before the kernel knew
            os._exit(0)
    elif hasattr(os, "getppid"):

        def watch():
            while os.getppid() == parent:
                time.sleep(0.5)
            os._exit(0)

        threading.Thread(target=watch, daemon=True).start()


def landlock_version():
    """Landlock's version in this kernel, 0 or less without it. Source: the kernel's userspace-api/landlock."""
    # landlock_create_ruleset, LANDLOCK_CREATE_RULESET_VERSION
    return ctypes.CDLL(None).syscall(444, None, 0, 1)


def landlock_nothing():
    """Take every right on files and TCP ports away. Returns False where the kernel cannot.

    The numbers are the same on all architectures.
    """
    system, version = ctypes.CDLL(None).syscall, landlock_version()
    if version < 1:
        return False
    files = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    ports = 3 if version >= 4 else 0
    attributes = (ctypes.c_uint64 * 2)(files, ports)
    ruleset = system(444, ctypes.byref(attributes), ctypes.c_size_t(16 if version >= 4 else 8), 0)
    if ruleset < 0:
        return False
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    restricted = system(446, ruleset, 0) == 0  # landlock_restrict_self
    os.close(ruleset)
    return restricted
