"""What a reader needs to know of how a run was made: versions, machine, git."""

import functools
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
    return {
        "command": command,
        "python": sys.version.split()[0],
        "versions": _versions(),
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "torch": torch.backends.cpu.get_cpu_capability(),
        },
        "device": str(device),
        "git": _git(),
    }


@functools.cache
def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "unknown"
    return versions


@functools.cache
def _git() -> dict[str, Any] | None:
    """Commit and state of the checkout that the code lies in; None outside of one.

    Asked once a process: what is changed later is not what runs.
    """
    folder = Path(__file__).resolve().parent
    try:
        commit = _run(folder, "rev-parse", "HEAD")
        return {"commit": commit, "modified": bool(_run(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=5)
    return done.stdout.strip()
