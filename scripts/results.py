"""A table of finished runs: final and best return of each seed, and of each experiment over its seeds.

python scripts/results.py outputs/ppo_cartpole-v1 outputs/dqn_cartpole-v1

Seeds that were trained together have one cost, that of all.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from rlexp.storage import read_json
from rlexp.storage.rows import read_rows


def tables_of(experiment: Path) -> list[list[dict[str, Any]]]:
    """The finished runs of one experiment's folder: those of seeds alone, and those of each set of stacked seeds."""
    alone = [folder for folder in experiment.glob("s[0-9]*") if (folder / "rows.jsonl").exists()]
    stacked = [sorted(folder.glob("s[0-9]*"), key=_seed) for folder in sorted(experiment.glob("seeds_*"))]
    return [seeds for folders in (sorted(alone, key=_seed), *stacked) if (seeds := finished(folders))]


def _seed(folder: Path) -> int:
    return int(read_json(folder / "run.json")["seed"])


def finished(folders: list[Path]) -> list[dict[str, Any]]:
    found = []
    for folder in folders:
        status, run = read_json(folder / "status.json"), read_json(folder / "run.json")
        if status.get("state") == "finished" and status.get("results"):
            steps = max(row["env_steps"] for row in read_rows(folder / "rows.jsonl"))
            together = folder.parent.name.startswith("seeds_")
            cost = read_json((folder.parent if together else folder) / "sessions.json")["cost"]
            entry = {"run": run, "results": status["results"], "env_steps": steps, "together": together}
            found.append(entry | {"wall": cost["wall_s"], "cpu": cost["cpu_s"]})
    return found


def command(seeds: list[dict[str, Any]]) -> str:
    """What was typed, but for where it lies and what it says."""
    quiet = ("seed", "outputs", "display", "logger")
    words = " ".join(word for word in seeds[0]["run"]["overrides"] if not word.startswith(quiet))
    numbers = ",".join(str(seed["run"]["seed"]) for seed in seeds)
    return f"rlexp {words} seeds=[{numbers}]" if seeds[0]["together"] else f"rlexp -m {words} seed={numbers}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="outputs/<algorithm>_<env>")
    options = parser.parse_args()
    out = sys.stdout.write
    columns = "final return, each seed | mean over seeds | best weights, each seed | wall, s | CPU, s"
    out(f"| command | env_steps | {columns} |\n")
    out("| --- | --- | --- | --- | --- | --- | --- |\n")
    experiments = sorted(path for folder in options.folders for path in folder.iterdir() if path.is_dir())
    for seeds in (table for experiment in experiments for table in tables_of(experiment)):
        final = [seed["results"]["final"]["return"] for seed in seeds]
        best = [seed["results"].get("best", seed["results"]["final"])["return"] for seed in seeds]
        costs = seeds[:1] if seeds[0]["together"] else seeds
        wall, cpu = (", ".join(f"{seed[name]:.0f}" for seed in costs) for name in ("wall", "cpu"))
        spread = f" +- {statistics.stdev(final):.1f}" if len(final) > 1 else ""
        out(
            f"| `{command(seeds)}` | {seeds[0]['env_steps']:,} | {', '.join(f'{x:.1f}' for x in final)} | "
            f"{statistics.fmean(final):.1f}{spread} | {', '.join(f'{x:.1f}' for x in best)} | {wall} | {cpu} |\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
