# threat: reads the trainer's memory
# expect: ok, error
# weak: secret
def search(process):
    with open(f"/proc/{process}/maps") as maps, open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        for line in maps:
            place, rights = line.split()[:2]
            start, end = (int(part, 16) for part in place.split("-"))
            if rights.startswith("rw") and end - start < 1 << 26:
                memory.seek(start)
                found = memory.read(end - start).partition((PREFIX + "memory").encode())
                if found[1]:
                    return found[1] + found[2][:20]


try:
    print(search(TRAINER))
except OSError as refusal:
    print(type(refusal).__name__)
