"""Learning curves of the seeds of one or more experiments as one picture (needs the extra `figures`).

python scripts/figure.py docs/images/curves.png outputs/ppo_cartpole-v1/1a2b3c4d outputs/dqn_cartpole-v1/5e6f7a8b
"""

import argparse
import io
import sys
from pathlib import Path

from rlexp.storage import make_directory, read_json, write_atomic
from rlexp.storage.rows import read_rows

METRICS = ("eval/return", "episode/return", "policy/entropy", "value/mean")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("experiments", nargs="+", type=Path, help="outputs/<algorithm>_<env>/<hash>")
    options = parser.parse_args()
    try:
        import matplotlib
    except ImportError:
        sys.stderr.write("figure.py needs matplotlib: pip install 'rlexp[figures]'\n")
        return 2
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(METRICS), figsize=(4 * len(METRICS), 3.2), layout="constrained")
    for colour, experiment in zip(pyplot.colormaps["tab10"].colors, options.experiments, strict=False):
        for number, folder in enumerate(sorted(experiment.glob("s*"))):
            rows = read_rows(folder / "rows.jsonl")
            seed = read_json(folder / "run.json")["seed"]
            for axis, metric in zip(axes, METRICS, strict=True):
                points = [(row["env_steps"], row[metric]) for row in rows if metric in row]
                label = f"{experiment.parent.name}, seed {seed}"
                axis.plot(
                    *zip(*points, strict=True), color=colour, alpha=1.0 - 0.25 * number, linewidth=1.2, label=label
                )
    for axis, metric in zip(axes, METRICS, strict=True):
        axis.set_title(metric, fontsize=10)
        axis.set_xlabel("env_steps", fontsize=9)
        axis.grid(alpha=0.3)
        axis.ticklabel_format(axis="x", style="sci", scilimits=(0, 4))
    axes[0].legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    make_directory(options.picture.parent)
    write_atomic(options.picture, buffer.getvalue())
    options.picture.chmod(0o644)
    return 0


if __name__ == "__main__":
    sys.exit(main())
