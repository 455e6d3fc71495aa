"""The tables of docs/performance.md, from docs/results/benchmark.json, which `scripts/benchmark.py --record` keeps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docs_page import DOCS, NOT_MEASURED, result, table

NAME = "benchmark"


def recorded(earlier: Mapping[str, Any] | None, found: Mapping[str, Any], titles: Mapping[str, str], date: str) -> Any:
    """What is kept: each workload as it was measured last, with the machine and the day. found: of benchmark.py."""
    kept = {
        "workloads": dict((earlier or {}).get("workloads", {})),
        **{name: (earlier or {}).get(name) for name in ("sweep", "start")},
    }
    about = {"date": date, "machine": found["machine"]}
    for name, summary in found["workloads"].items():
        kept["workloads"][name] = {"title": titles[name], **_summary(summary), **about}
    for name in ("sweep", "start"):
        if name in found:
            kept[name] = {**_summary(found[name]), **about}
    return kept


def _summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {**summary, "rounds": len(summary["rounds"]), "measured": summary["rounds"]}


def workloads(folder: Path = DOCS / "results") -> str:
    """Steps per CPU-second of both peers, and their ratio."""
    measured = (result(NAME, folder) or {}).get("workloads")
    if not measured:
        return NOT_MEASURED
    rows = []
    for name, found in sorted(measured.items()):
        speed = found["steps_per_cpu_second"]
        row = [f"{name}: {found['title']}", str(found["rounds"]), _cell(speed["sb3"], 0), _cell(speed["rlexp"], 0)]
        gain = _cell(found["gain"], 2) if "gain" in found else ""
        rows.append([*row, f"**{_cell(found['ratio'], 2)}**", gain])
    header = [
        "workload",
        "rounds",
        "Stable-Baselines3, steps per CPU-s",
        "rlexp",
        "ratio",
        "ratio to rlexp without programs",
    ]
    return f"{table(header, rows)}\n\n{_where(measured)}"


def sweep(folder: Path = DOCS / "results") -> str:
    """Wall and CPU seconds of ten seeds, each way."""
    found = (result(NAME, folder) or {}).get("sweep")
    if not found:
        return NOT_MEASURED
    rows = []
    for way, figures in found["ways"].items():
        row = [WAYS.get(way, way), _cell(figures["wall_seconds"], 1), _cell(figures["cpu_seconds"], 1)]
        load = _cell(figures["load"], 1) if "load" in figures else "not noted"
        rows.append([*row, _cell(figures["times_faster"], 2), load])
    header = ["way", "wall, s", "CPU, s", "times faster, wall", "load before"]
    rounds = f"{found['rounds']} rounds"
    return f"{table(header, rows)}\n\n{_where({rounds: found})}"


def start(folder: Path = DOCS / "results") -> str:
    """Seconds to the first training step of both peers."""
    found = (result(NAME, folder) or {}).get("start")
    if not found:
        return NOT_MEASURED
    names = {"sb3": 'Stable-Baselines3, `PPO("MlpPolicy", "CartPole-v1").learn(...)`'}
    names["rlexp"] = "`rlexp`, composed, checked, with its folder and its row file"
    rows = [
        [names[peer], _cell(figures["wall_seconds"], 2), _cell(figures["cpu_seconds"], 2)]
        for peer, figures in found["peers"].items()
    ]
    rounds = f"{found['rounds']} rounds"
    return f"{table(['', 'wall clock', 'CPU'], rows)}\n\n{_where({rounds: found})}"


WAYS = {
    "sb3": "Stable-Baselines3, a process a seed, two at once",
    "joblib": "`rlexp -m seed=0,...,9 hydra/launcher=joblib`, two at once",
    "stacked": "`rlexp seeds=[0,...,9]`, one process on one core",
    "stacked_two": "two processes of five stacked seeds",
}


def _cell(spread: Mapping[str, float], digits: int) -> str:
    median, least, most = (f"{spread[key]:.{digits}f}" for key in ("median", "min", "max"))
    return median if least == most else f"{median} ({least}..{most})"


def _where(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """`Measured 2026-11-26 on AMD EPYC, 2 cores; Python ...`, once for each machine and day."""
    told: dict[str, list[str]] = {}
    for name, found in measured.items():
        machine = dict(found["machine"])
        place = f"{found['date']} on {machine.pop('processor')}, {machine.pop('cores')} cores"
        versions = ", ".join(f"{package} {version}" for package, version in machine.items())
        told.setdefault(f"{place}; {versions}", []).append(name)
    return " ".join(f"{', '.join(names)}: measured {where}." for where, names in told.items())
