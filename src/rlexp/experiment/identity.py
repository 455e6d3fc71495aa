"""What makes two runs the same experiment: the hash of the configuration, and where its runs lie."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlexp.errors import ConfigError
from rlexp.redaction import anonymous, redacted

NOT_PART_OF_IT = (
    "seed",
    "seeds",
    "device",
    "display",
    "logger",
    "checkpoint",
    "evaluation",
    "execution",
    "outputs",
    "restart",
    "plugins",
    "tags",
)
"""Keys without influence on what is learned, and the seed: runs that differ in these alone share a hash."""


def config_hash(config: Mapping[str, Any]) -> str:
    """8 hexadecimal digits of the experiment that a checked configuration describes."""
    canonical = json.dumps(_described(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def _described(config: Mapping[str, Any]) -> dict[str, Any]:
    described = {key: value for key, value in config.items() if key not in NOT_PART_OF_IT}
    described["env"] = {key: value for key, value in config["env"].items() if key != "declared"}
    kept: dict[str, Any] = anonymous(described)
    return kept


class Identity:
    """The part of a checkpoint that says which run it is of: its seeds, and what the hash is of.

    How long the run is to be is left out: one that is extended goes on from another's checkpoint.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        described = {**_described(config), "seeds": config["seeds"] or config["seed"]}
        kept = {key: value for key, value in described.items() if key not in ("total_env_steps", "extend")}
        self._lines = sorted(_lines(kept))
        self._saved = sorted(_lines(redacted(kept)))  # a secret may be part of a longer text

    def state_dict(self) -> dict[str, Any]:
        return {"lines": self._saved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads nothing. Raises ConfigError, naming the first field that differs, for the checkpoint of another run."""
        every = (self._lines, self._saved, state["lines"])
        here, saved, there = (dict(line.split("=", 1) for line in lines) for lines in every)
        for field in sorted(here.keys() | there.keys()):
            if there.get(field) not in (here.get(field), saved.get(field)):
                values = f"{there.get(field, 'none')} there, {here.get(field, 'none')} here"
                raise ConfigError(f"is a checkpoint of another run: {field} is {values}")


def _lines(node: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """`algorithm.gamma=0.99`, one for each value."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{above}{key}.")
        else:
            yield f"{above}{key}={json.dumps(value)}"


def family_name(config: Mapping[str, Any]) -> str:
    """`<algorithm>_<env>`, safe as the name of a directory."""
    algorithm = config["algorithm"]["_target_"].split(".")[-2]
    return f"{slug(algorithm)}_{slug(config['env']['id'])}"


def slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip(".-").lower()[:80] or "unnamed"


def experiment_directory(config: Mapping[str, Any]) -> Path:
    """`outputs/<algorithm>_<env>/<hash>`, the folder that the seeds of one experiment share."""
    return Path(config["outputs"]) / family_name(config) / config_hash(config)


def run_directories(config: Mapping[str, Any]) -> list[Path]:
    """Existing runs of this experiment and seed, the oldest first: `s3`, `s3-2`, `s3-3`."""
    name = _run_name(config)
    numbered = {}
    for path in experiment_directory(config).glob(f"{name}*"):
        match = re.fullmatch(re.escape(name) + r"(?:-(\d+))?", path.name)
        if match and path.is_dir():
            numbered[int(match.group(1) or 1)] = path
    return [numbered[number] for number in sorted(numbered)]


def next_run_directory(config: Mapping[str, Any], existing: Sequence[Path]) -> Path:
    """existing: `run_directories`, looked at once: between two looks another process may have begun the same run."""
    name = _run_name(config)
    number = 1 + max((int(path.name[len(name) + 1 :] or 1) for path in existing), default=0)
    return experiment_directory(config) / (name if number == 1 else f"{name}-{number}")


def _run_name(config: Mapping[str, Any]) -> str:
    """`s3`, or `seeds_0-4_5`: first, last, how many; with a digest where others may lie between them."""
    seeds = config["seeds"]
    if seeds is None:
        return f"s{config['seed']}"
    name = f"seeds_{seeds[0]}-{seeds[-1]}_{len(seeds)}"
    if list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return name
    return f"{name}_{hashlib.sha256(repr(list(seeds)).encode()).hexdigest()[:4]}"


def outputs_of(directory: Path) -> Path:
    """The folder that a run's folder was made in: it lies in `<outputs>/<algorithm>_<env>/<hash>/s<seed>`.

    Seeds that were stacked lie a folder deeper, in `seeds_0-4_5/s<seed>`. A copied run keeps to itself.
    """
    run = directory.resolve()
    if re.fullmatch(r"seeds_\d+-\d+_\d+.*", run.parent.name) and re.fullmatch(r"s\d+", run.name):
        run = run.parent.with_name(run.name)
    laid_out = re.fullmatch(r"s\d+(-\d+)?", run.name) and re.fullmatch(r"[0-9a-f]{8}", run.parent.name)
    return run.parents[2] if laid_out else directory.resolve()


def human_name(overrides: Sequence[str], seeds: int | Sequence[int]) -> str:
    """What the user changed, and the seed: the name of the W&B run. Of a job that stacks seeds, all of them."""
    quiet = ("seed", "seeds", "outputs", "display", "logger", "device", "tags", "restart", "execution", "checkpoint")
    changed = [o for o in overrides if o.lstrip("+~").partition("=")[0].split(".")[0] not in quiet]
    ending = f"s{seeds}" if isinstance(seeds, int) else f"{STACKED}{list(seeds)}"
    return f"{' '.join(changed or ['default'])[:100]} {ending}"


STACKED = "seeds="


def name_of_seed(name: str, seed: int) -> str:
    """The name of one seed of a job: as if it were alone."""
    stem, stacked, _ = name.rpartition(f" {STACKED}")
    return f"{stem} s{seed}" if stacked else name
