"""Damage the newest checkpoint of a real run in every way and see that it is refused and the one before it is loaded.

    python scripts/damage.py                                       # a line with the figures
    python scripts/damage.py --record docs/results/damage.json     # and the figures as a file

A small run is made; then, one at a time, single bits of its newest checkpoint are flipped at random places, and each of
its files is cut: small ones (up to 8 KiB) to every length, larger ones at every 1/64 and one byte before its end. At
every 1/64 it is also left as long as it was, with zeros from there on. A case counts as refused where what continues a
run passes the checkpoint over and names it, and as fallen back where it then gives the tree of the checkpoint before,
equal in every bit.
"""

import argparse
import importlib.metadata
import platform
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kill_storm import SHORT, difference

from rlexp.experiment.checkpoint import Checkpointer
from rlexp.experiment.display import Display
from rlexp.experiment.jobs import checked_jobs
from rlexp.experiment.members import Failures
from rlexp.experiment.run import run
from rlexp.storage import write_json
from rlexp.storage.checkpoints import load_tree

RUN = [
    *SHORT,
    "algorithm=dqn",
    "total_env_steps=600",
    "experience.learning_starts=100",
    "experience.capacity=500",
    "network.hidden=[32]",
    "checkpoint.interval=300",
]
SMALL = 8192  # bytes up to which a file is cut to every length
PARTS = 64


class Damage(NamedTuple):
    """One way to damage one file."""

    kind: str  # flip, truncation or zeros
    file: str
    place: int  # the bit, or the length that is left
    data: bytes


class Kept:
    """A part of a checkpoint that keeps what it is given."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def make_run(outputs: Path, *overrides: str) -> Path:
    """The folder of a finished run with two checkpoints."""
    (job,) = checked_jobs([*RUN, *overrides, f"outputs={outputs}"], multirun=False)
    return run(job, Display("none")).directory


def flips(checkpoint: Path, number: int, seed: int) -> Iterator[Damage]:
    """Single bits, at places drawn from all bits of the checkpoint's files."""
    files = {path.name: path.read_bytes() for path in sorted(checkpoint.iterdir())}
    rng = random.Random(seed)
    names, sizes = list(files), [len(data) for data in files.values()]
    for _ in range(number):
        (name,) = rng.choices(names, sizes)
        bit = rng.randrange(8 * len(files[name]))
        altered = bytearray(files[name])
        altered[bit // 8] ^= 1 << bit % 8
        yield Damage("flip", name, bit, bytes(altered))


def cuts(checkpoint: Path) -> Iterator[Damage]:
    """Each file cut short, and as long as it was with zeros from there on, as a disk may leave it."""
    for path in sorted(checkpoint.iterdir()):
        data = path.read_bytes()
        parts = {len(data) * part // PARTS for part in range(PARTS)} | {len(data) - 1}
        for length in range(len(data)) if len(data) <= SMALL else sorted(parts):
            yield Damage("truncation", path.name, length, data[:length])
        for length in sorted(parts):
            zeroed = data[:length].ljust(len(data), b"\0")
            if zeroed != data:
                yield Damage("zeros", path.name, length, zeroed)


class Outcome(NamedTuple):
    """Of one damage."""

    refused: bool
    fell_back: bool


def try_damage(checkpoint: Path, damage: Damage, before: dict[str, Any]) -> Outcome:
    """Damage the newest checkpoint, load as a run that continues does, and mend it again.

    before: the tree of the checkpoint before it.
    """
    path = checkpoint / damage.file
    good = path.read_bytes()
    path.write_bytes(damage.data)
    try:
        parts = {name: Kept() for name in before}
        found, damaged = Checkpointer(checkpoint.parent, parts, 1, 2, Failures([0]), lambda _: None).load_newest()
        loaded = {name: part.state for name, part in parts.items()}
        fell_back = found is not None and found != checkpoint and difference(loaded, before) is None
        return Outcome(found != checkpoint and str(checkpoint) in damaged[0], fell_back)
    finally:
        path.write_bytes(good)


def measure(folder: Path, number: int, seed: int) -> dict[str, Any]:
    """The figures of one run."""
    checkpoints = sorted((make_run(folder) / "checkpoints").glob("[0-9]*"))
    before = load_tree(checkpoints[-2])
    tried = [*flips(checkpoints[-1], number, seed), *cuts(checkpoints[-1])]
    outcomes = [try_damage(checkpoints[-1], damage, before) for damage in tried]
    bad = [
        (damage.kind, damage.file, damage.place)
        for damage, outcome in zip(tried, outcomes, strict=True)
        if outcome != (True, True)
    ]
    return {
        "flips": sum(damage.kind == "flip" for damage in tried),
        "truncations": sum(damage.kind == "truncation" for damage in tried),
        "zeroed": sum(damage.kind == "zeros" for damage in tried),
        "refused": sum(outcome.refused for outcome in outcomes),
        "loaded_as_good": sum(not outcome.refused for outcome in outcomes),
        "fell_back": sum(outcome.fell_back for outcome in outcomes),
        "not_as_promised": bad[:20],
        "checkpoint_bytes": {path.name: path.stat().st_size for path in sorted(checkpoints[-1].iterdir())},
        "run": RUN,
        "seed": seed,
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("rlexp", "torch", "numpy", "safetensors")},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=500, help="how many bits (500)")
    parser.add_argument("--seed", type=int, default=0, help="of the places of flipped bits (0)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.flips, options.seed)
    if options.record is not None:
        write_json(options.record, figures)
    count = figures["refused"] + figures["loaded_as_good"]
    sys.stdout.write(
        f"{figures['flips']} flips, {figures['truncations']} truncations, {figures['zeroed']} zeroed: "
        f"{figures['refused']} of {count} refused, {figures['fell_back']} fell back to the checkpoint before\n"
    )
    return 0 if not figures["not_as_promised"] else 1


if __name__ == "__main__":
    sys.exit(main())
