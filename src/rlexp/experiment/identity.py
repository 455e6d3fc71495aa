"""What makes two runs the same experiment: the hash of the configuration, and where its runs lie."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NOT_PART_OF_IT = (
    "seed",
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
    described = {key: value for key, value in config.items() if key not in NOT_PART_OF_IT}
    described["env"] = {key: value for key, value in config["env"].items() if key != "declared"}
    canonical = json.dumps(described, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


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
    name = f"s{config['seed']}"
    numbered = {}
    for path in experiment_directory(config).glob(f"{name}*"):
        match = re.fullmatch(re.escape(name) + r"(?:-(\d+))?", path.name)
        if match and path.is_dir():
            numbered[int(match.group(1) or 1)] = path
    return [numbered[number] for number in sorted(numbered)]


def next_run_directory(config: Mapping[str, Any]) -> Path:
    existing = run_directories(config)
    number = 1 + max((int(path.name.partition("-")[2] or 1) for path in existing), default=0)
    name = f"s{config['seed']}" if number == 1 else f"s{config['seed']}-{number}"
    return experiment_directory(config) / name


def human_name(overrides: Sequence[str], seed: int) -> str:
    """What the user changed, and the seed: the name of the W&B run."""
    quiet = ("seed", "outputs", "display", "logger", "device", "tags", "restart", "execution", "checkpoint")
    changed = [o for o in overrides if o.lstrip("+~").partition("=")[0].split(".")[0] not in quiet]
    return f"{' '.join(changed or ['default'])[:100]} s{seed}"
