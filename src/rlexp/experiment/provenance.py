"""What a reader needs to know of how a run was made: versions, machine, git."""

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("rlexp", "torch", "numpy", "gymnasium", "hydra-core", "omegaconf", "safetensors", "wandb")


def provenance(command: list[str], device: torch.device) -> dict[str, Any]:
    """Plain values for run.json."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "unknown"
    return {
        "command": command,
        "python": sys.version.split()[0],
        "versions": versions,
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "torch": torch.backends.cpu.get_cpu_capability(),
        },
        "device": str(device),
        "git": _git(),
    }


def _git() -> dict[str, Any] | None:
    """Commit and state of the checkout that the code lies in; None outside of one."""
    folder = Path(__file__).resolve().parent
    try:
        commit = _run(folder, "rev-parse", "HEAD")
        return {"commit": commit, "modified": bool(_run(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=5)
    return done.stdout.strip()
