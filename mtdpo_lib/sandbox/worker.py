"""A sandbox worker: a separate process that holds WebAssembly sessions and nothing worth stealing.

Started as ``python -I worker.py SNAPSHOT LIMITS`` with an empty environment. Requests come as JSON lines on standard input;
answers leave on a private copy of descriptor 1, because a guest's raw ``os.write(1, ...)`` lands on the real descriptor 1,
which is closed off here, as is 2. It ends when its input ends, that is when its parent ends, however that happened.
"""

import json
import os
import sys


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf8")
    hole = os.open(os.devnull, os.O_RDWR)
    os.dup2(hole, 1)
    os.dup2(hole, 2)

    import eryx

    limits = json.loads(sys.argv[2])
    factory = eryx.SandboxFactory.load(sys.argv[1])
    guest_limits = eryx.ResourceLimits(
        execution_timeout_ms=int(limits["seconds"] * 1000),
        max_fuel=limits["million_instructions"] * 1_000_000,
        max_memory_bytes=limits["memory_mib"] << 20,
        max_vfs_bytes=1 << 20,
    )
    sessions: dict[int, eryx.Session] = {}

    def run(session_id: int, code: str) -> dict:
        session = sessions.get(session_id)
        if session is None:
            session = sessions[session_id] = factory.create_session(resource_limits=guest_limits)
        try:
            result = session.execute(f"_mtdpo_cell({code!r}, {limits['output_characters']})")
        except eryx.EryxError as problem:
            sessions.pop(session_id)  # its interpreter stopped in the middle of something: never used again
            timed_out = isinstance(problem, eryx.TimeoutError) or "out of fuel" in str(problem)
            return {"status": "timeout" if timed_out else "killed"}
        return {"status": "ran", "report": result.stdout_text}

    print(json.dumps({"status": "ready"}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "close":
            sessions.pop(request["session"], None)
            continue
        print(json.dumps(run(request["session"], request["code"])), file=answers, flush=True)


if __name__ == "__main__":
    main()
