# threat: lifts its own limits, then takes what it wants
# expect: error, memory, timeout
# weak: memory
try:
    import resource

    for kind in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE):
        resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
except (ImportError, OSError, ValueError) as refusal:
    print(type(refusal).__name__)
block = bytearray(b"x") * (MIB << 20)
