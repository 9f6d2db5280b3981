"""What a minute of the main job is spent on: ``python tests/benchmarks/main_job.py RUN``.

RUN is the folder of a finished run that nothing disturbed (``make reproduce`` in a new folder). For each kind of stage the
table has how many there were, their seconds, and the seconds of each minute that they took; what is left over are the
notebooks themselves: kernels, imports, figures, small models in 01, checks. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mtdpo_lib.common.files import read_json
from mtdpo_lib.common.stages import seconds_of_stages


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    notebooks, stages = read_json(run / "run.json")["seconds"], seconds_of_stages(run / "stages")
    total = sum(notebooks.values())
    spent = {kind: sum(seconds) for kind, seconds in stages.items()}
    spent["the notebooks themselves"] = total - sum(spent.values())
    print(f"{'':<26}{'count':>6}{'seconds':>9}{'per minute':>12}")
    for kind, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        count = len(stages.get(kind, notebooks))
        print(f"{kind:<26}{count:>6}{seconds:>9.0f}{60 * seconds / total:>12.1f}")
    print(f"{'all':<26}{len(notebooks):>6}{total:>9.0f}{60:>12}")
    print(
        json.dumps(
            {"seconds": {kind: round(seconds, 1) for kind, seconds in spent.items()}, "notebooks": notebooks}
        )
    )


if __name__ == "__main__":
    main()
