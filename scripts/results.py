"""A table of finished runs: final and best return of each seed, and of each experiment over its seeds.

python scripts/results.py outputs/ppo_cartpole-v1 outputs/dqn_cartpole-v1
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from rlexp.storage import read_json, read_rows


def seeds_of(experiment: Path) -> list[dict[str, Any]]:
    """The finished runs of one experiment's folder, by their seed."""
    found = []
    for folder in sorted(experiment.glob("s*")):
        status, run = read_json(folder / "status.json"), read_json(folder / "run.json")
        if status.get("state") == "finished" and status.get("results"):
            rows = read_rows(folder / "rows.jsonl")
            seconds = sum(
                value for row in rows for key, value in row.items() if key.startswith("time/") and key != "time/fps"
            )
            steps = max(row["env_steps"] for row in rows)
            found.append({"run": run, "results": status["results"], "seconds": seconds, "env_steps": steps})
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="outputs/<algorithm>_<env>")
    options = parser.parse_args()
    out = sys.stdout.write
    out("| command | env_steps | final return, each seed | mean over seeds | best weights, each seed | wall, s |\n")
    out("| --- | --- | --- | --- | --- | --- |\n")
    for experiment in sorted(path for folder in options.folders for path in folder.iterdir() if path.is_dir()):
        seeds = seeds_of(experiment)
        if not seeds:
            continue
        final = [seed["results"]["final"]["return"] for seed in seeds]
        best = [seed["results"].get("best", seed["results"]["final"])["return"] for seed in seeds]
        names = " ".join(
            o for o in seeds[0]["run"]["overrides"] if not o.startswith(("seed", "outputs", "display", "logger"))
        )
        numbers = ",".join(str(seed["run"]["seed"]) for seed in seeds)
        walls = ", ".join(f"{seed['seconds']:.0f}" for seed in seeds)
        spread = f" +- {statistics.stdev(final):.1f}" if len(final) > 1 else ""
        out(
            f"| `rlexp -m {names} seed={numbers}` | {seeds[0]['env_steps']:,} | "
            f"{', '.join(f'{x:.1f}' for x in final)} | "
            f"{statistics.fmean(final):.1f}{spread} | {', '.join(f'{x:.1f}' for x in best)} | "
            f"{walls} |\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
