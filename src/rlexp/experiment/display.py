"""What a person sees while a run goes: a live table in a terminal, plain lines elsewhere. Everything goes to stderr."""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.syntax import Syntax
from rich.table import Table

from rlexp.redaction import redact, redacted
from rlexp.types import Progress, Update

REFRESH = 0.2  # seconds between refreshes of the live table
LINE_EVERY = 5.0  # seconds between plain lines
SHOWN = (
    "episode/return",
    "episode/length",
    "eval/return",
    "policy/entropy",
    "value/max_q",
    "value/mean",
    "value/td_error",
)


class Display:
    """A callback of the loop, a listener of rows. `mode`: auto, live, plain or none."""

    def __init__(self, mode: str, title: str = "") -> None:
        self._console = Console(stderr=True, highlight=False)
        live = mode == "live" or (mode == "auto" and self._console.is_terminal)
        self._plain = mode == "plain" or (mode == "auto" and not live)
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if live else None
        self._title = redact(title)
        self._rows: dict[int, dict[str, float]] = {}
        self._values: dict[str, float] = {}
        self._phases: dict[str, float] = {}
        self._begun: tuple[float, int] | None = None
        self._next = 0.0
        self._progress = Progress(0, 0, 1)

    def show_config(self, config: Mapping[str, Any]) -> None:
        """The composed configuration, as it is saved."""
        text = yaml.safe_dump(redacted(config), sort_keys=False, default_flow_style=None, width=110).rstrip()
        if self._live is not None:
            self._console.print(Syntax(text, "yaml", background_color="default"))
        elif self._plain:
            self.say(text)

    def say(self, text: str) -> None:
        """One line, whatever the mode but `none`."""
        text = redact(text)
        if self._live is not None:
            self._live.console.print(text, markup=False)
        elif self._plain:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def row(self, row: Mapping[str, Any], seed: int) -> None:
        """Of several seeds the mean is shown."""
        self._rows[seed] = {
            **self._rows.get(seed, {}),
            **{name: value for name, value in row.items() if isinstance(value, float)},
        }
        names = {name for of_seed in self._rows.values() for name in of_seed}
        values = {
            name: statistics.fmean(of_seed[name] for of_seed in self._rows.values() if name in of_seed)
            for name in names
        }
        phases = {name[5:]: value for name, value in values.items() if name.startswith("time/") and name != "time/fps"}
        self._phases = phases or self._phases
        self._values |= {name: value for name, value in values.items() if name[5:] not in phases}

    def __call__(self, progress: Progress, updates: Sequence[Sequence[Update]], state: Any) -> str | None:
        now = time.monotonic()
        if self._begun is None:
            self._begun = (now, progress.env_steps)
            if self._live is not None:
                self._live.start()
        if now >= self._next and (self._live is not None or self._plain):
            self._progress = progress
            if self._live is not None:
                self._live.update(self._table(), refresh=True)
            elif self._values:
                self.say(self._line())
            self._next = now + (REFRESH if self._live is not None else LINE_EVERY)
        return None

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()

    def _seconds_left(self) -> float:
        if self._begun is None:
            return 0.0
        began, steps = self._begun
        done = self._progress.env_steps - steps
        left = self._progress.total_env_steps - self._progress.env_steps
        return (time.monotonic() - began) / done * left if done > 0 else 0.0

    def _line(self) -> str:
        shown = [f"{name} {self._values[name]:.4g}" for name in SHOWN if name in self._values]
        share = self._progress.env_steps / self._progress.total_env_steps
        fps = self._values.get("time/fps", 0.0)
        return "  ".join(
            [
                f"{share:4.0%} {self._progress.env_steps:>9} steps",
                f"{fps:.0f} fps",
                *shown,
                f"{_clock(self._seconds_left())} left",
            ]
        )

    def _table(self) -> Table:
        table = Table(title=self._title, show_header=False, title_justify="left", box=None, padding=(0, 2))
        progress = self._progress
        table.add_row("steps", ProgressBar(total=progress.total_env_steps, completed=progress.env_steps, width=40))
        table.add_row("", f"{progress.env_steps:,} of {progress.total_env_steps:,}, {progress.updates:,} updates")
        table.add_row("fps", f"{self._values.get('time/fps', 0.0):,.0f}, {_clock(self._seconds_left())} left")
        losses = [name for name in self._values if name.startswith("loss/")]
        for name in [*SHOWN, *losses]:
            if name in self._values:
                table.add_row(name, f"{self._values[name]:.4g}")
        total = sum(self._phases.values()) or 1.0
        split = [
            f"{phase} {seconds / total:.0%}" for phase, seconds in sorted(self._phases.items(), key=lambda kv: -kv[1])
        ]
        table.add_row("time", ", ".join(split))
        return table


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
