"""What /proc says of a process."""

import signal
from pathlib import Path


def status_of(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _has(mask: str, number: int) -> bool:
    return bool(int(mask or "0", 16) >> (number - 1) & 1)


def handles(pid: int, number: int = signal.SIGTERM) -> bool:
    """Whether a process has a handler of its own for a signal."""
    return _has(status_of(pid).get("SigCgt", ""), number)


def ignores(pid: int, number: int = signal.SIGTERM) -> bool:
    return _has(status_of(pid).get("SigIgn", ""), number)


def threads(pid: int) -> int:
    return int(status_of(pid).get("Threads", "0"))


def parent_of(pid: int) -> int:
    return int(status_of(pid).get("PPid", "0"))


def lives(pid: int) -> bool:
    """One that has died and is yet to be reaped does not."""
    return status_of(pid).get("State", "Z")[0] not in "ZX"


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def children_of(pid: int) -> list[int]:
    """Processes begun by any thread of that one."""
    found: list[int] = []
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, each.read_text().split())
        except OSError:
            continue
    return found
