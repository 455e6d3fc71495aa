"""Pages of docs/ that are written by hand but for their figures: `docs/sources/<page>.md` with places to be filled.

A place is a line of its own such as `{{figures kill_storm}}`: a name, and words for the function that fills it. Figures
come from `docs/results/<name>.json`, which the scripts that measure write (`--record`) and which are committed.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOT_MEASURED = "*Not measured.*"

Place = Callable[..., str]

_PLACE = re.compile(r"^\{\{(\w+)((?: [^{}\n]+)?)\}\}$", re.MULTILINE)
_CIRCUMSTANCES = ("date", "machine", "processor", "cores", "device", "python", "versions")
_UNSHOWN = ("git", "command")


def fill(text: str, places: Mapping[str, Place]) -> str:
    """Every place by what its function makes of the words behind its name.

    Raises SystemExit where a place has a name that is not known.
    """

    def filled(match: re.Match[str]) -> str:
        name, words = match[1], match[2].split()
        if name not in places:
            raise SystemExit(f"{match[0]}: no such place; there are {', '.join(places)}")
        return places[name](*words)

    return _PLACE.sub(filled, text)


def result(name: str, folder: Path = DOCS / "results") -> dict[str, Any] | None:
    """A committed result, None where there is none."""
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def figures(name: str, folder: Path = DOCS / "results") -> str:
    """A whole result as tables, whatever its keys are: plain values, mappings of mappings, and where it was made."""
    found = result(name, folder)
    if found is None:
        return NOT_MEASURED
    plain, many = [], []
    for key, value in found.items():
        if key in _CIRCUMSTANCES or key in _UNSHOWN:
            continue
        if isinstance(value, Mapping) and value and all(isinstance(inner, Mapping) for inner in value.values()):
            many.append(_comparison(key, value))
        else:
            plain.append([key.replace("_", " "), shown(value)])
    parts = [table(["", ""], plain)] if plain else []
    return "\n\n".join([*parts, *many, circumstances(found)]).strip()


def _comparison(key: str, cases: Mapping[str, Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for case in cases.values() for column in case))
    rows = [[name, *(shown(case.get(column, "")) for column in columns)] for name, case in cases.items()]
    return table([key.replace("_", " "), *(column.replace("_", " ") for column in columns)], rows)


def shown(value: Any) -> str:
    """A value in a cell: numbers to four digits, spreads as `median (min..max)`, lists and mappings in a row."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, Mapping):
        if value.keys() == {"median", "min", "max"}:
            return f"{shown(value['median'])} ({shown(value['min'])}..{shown(value['max'])})"
        return ", ".join(f"{key} {shown(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(shown, value)) or "none"
    return str(value)


def circumstances(found: Mapping[str, Any]) -> str:
    """`Measured 2026-11-26; ...; torch 2.13.0, ...`, an empty text where the result does not say."""
    told = []
    for key in _CIRCUMSTANCES:
        value = found.get(key)
        if value not in (None, "", {}):
            bare = key in ("date", "machine", "processor", "versions")
            told.append(shown(value) if bare else f"{key} {shown(value)}")
    return f"Measured: {'; '.join(told)}." if told else ""
