"""From a command line to composed configurations: Hydra composes, the words of its errors are ours.

Every override of a value is forced (`++`) before Hydra sees it, so that an unknown key reaches our own check, which
knows the nearest right one, whichever of `key=`, `+key=` and `++key=` was typed.
"""

import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlexp.errors import ConfigError
from rlexp.experiment.choices import compose_choices, groups, set_values
from rlexp.experiment.references import resolved
from rlexp.experiment.sources import read_within_bounds

CONFIG_DIR_VARIABLE = "RLEXP_CONF_DIR"
MOST_JOBS = 10_000  # of a sweep: a slip such as range(0,1e9) is not to fill the memory
_PACKAGE = re.compile(r"[A-Za-z_][\w.]{0,60}")


@dataclass(frozen=True)
class Composed:
    """One job: its configuration as plain values, and the overrides that the user typed for it."""

    config: dict[str, Any]
    overrides: tuple[str, ...]


class UserConfigDirectory(SearchPathPlugin):
    """Puts the folder named by RLEXP_CONF_DIR (or `--config-dir`) before the bundled one: it may add and override."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        directory = os.environ.get(CONFIG_DIR_VARIABLE)
        if directory:
            search_path.prepend(provider="rlexp-user", path=f"file://{Path(directory).resolve()}")


def conf_dir() -> Path:
    """The bundled configuration folder: inside the installed package, or at the top of a checkout."""
    here = Path(__file__).resolve().parents[1]
    for candidate in (here / "conf", here.parents[1] / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise ConfigError(f"the configuration folder conf/ is missing beside {here}; install rlexp again")


def use_config_dir(directory: str | None) -> None:
    """Take a user's own folder; raises ConfigError where there is none."""
    chosen = directory or os.environ.get(CONFIG_DIR_VARIABLE)
    if chosen and not Path(chosen).is_dir():
        raise ConfigError(f"configuration folder {chosen} does not exist; check --config-dir and {CONFIG_DIR_VARIABLE}")
    if chosen:
        os.environ[CONFIG_DIR_VARIABLE] = str(Path(chosen).resolve())
    read_within_bounds()
    if UserConfigDirectory not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(UserConfigDirectory)


def compose_jobs(arguments: Sequence[str], *, multirun: bool = False) -> list[Composed]:
    """Compose every job of a command line; raises ConfigError, one line, for the first fault."""
    with _readable_errors(), _hydra():
        parsed = _parse(arguments)
        prepared = [_prepare(override) for override in parsed if not _is_default_null(override)]
        if not multirun:
            for override in parsed:
                if override.is_sweep_override():
                    raise ConfigError(f"{override.input_line}: several values need a sweep; add -m")
            batches = [prepared]
            typed = [list(arguments)]
        else:
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            lines = list(parser.parse_overrides(prepared))
            _refuse_too_many(lines)
            batches = [job for chunk in BasicSweeper.split_arguments(lines, None) for job in chunk]
            typed = [[_typed(line) for line in job] for job in batches]
        return [Composed(_compose(batch), tuple(words)) for batch, words in zip(batches, typed, strict=True)]


def _refuse_too_many(lines: Sequence[Override]) -> None:
    count = 1
    for line in lines:
        found = line.value()
        if isinstance(found, RangeSweep) and found.start is not None and found.stop is not None and found.step:
            count *= max(1, math.ceil((found.stop - found.start) / found.step))
        elif line.is_choice_sweep():
            count *= max(1, sum(1 for _ in line.sweep_string_iterator()))
        if count > MOST_JOBS:
            raise ConfigError(f"{line.input_line}: makes more than {MOST_JOBS:,} jobs; give fewer values")


def split_hydra(arguments: Sequence[str]) -> tuple[list[Override], list[str]]:
    """Those of the arguments that steer Hydra itself (`hydra/launcher=joblib`), and the others as they were typed."""
    with _readable_errors():
        parsed = _parse(arguments)
    return [o for o in parsed if _is_hydra(o)], [o.input_line or "" for o in parsed if not _is_hydra(o)]


@contextmanager
def _hydra() -> Iterator[None]:
    read_within_bounds()
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir()), job_name="rlexp"):
        yield


@contextmanager
def _readable_errors() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Hydra's are of several lines, and mean a mistake
            yield
    except UserWarning as warning:
        raise ConfigError(" ".join(str(warning).split())) from warning
    except RecursionError as error:
        raise ConfigError("values are nested too deeply, or configuration files name each other in a circle") from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, ArithmeticError, OSError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
        raise ConfigError(" ".join(str(cause).split())) from error


def _parse(arguments: Sequence[str]) -> list[Override]:
    for argument in arguments:
        if "=" not in argument and not argument.startswith("~"):
            raise ConfigError(f"{argument}: is not of the form key=value; see rlexp --help")
    return list(OverridesParser.create().parse_overrides(list(arguments)))


def _is_hydra(override: Override) -> bool:
    return override.key_or_group == "hydra" or override.key_or_group.startswith(("hydra.", "hydra/"))


def _prepare(override: Override) -> str:
    """The override as Hydra shall see it: a choice of a group as it is, a value forced."""
    if _is_hydra(override):
        return override.input_line or ""
    line = (override.input_line or "").lstrip("+")
    if override.is_delete() or _is_choice(override.key_or_group):
        return line
    return f"++{line}"


def _is_default_null(override: Override) -> bool:
    """`experiment=null` and `debug=null` say what holds anyway; Hydra would refuse them."""
    return override.key_or_group in ("experiment", "debug") and override.value() is None and not override.is_delete()


def _typed(line: str) -> str:
    return line.lstrip("+")


def _is_choice(key: str) -> bool:
    return key.split("@")[0] in groups()


def _compose(lines: Sequence[str]) -> dict[str, Any]:
    """Choices first, values on what they make: Hydra keeps this order, too."""
    choices: list[str] = []
    values: list[Override] = []
    for override in OverridesParser.create().parse_overrides(list(lines)):
        if _is_hydra(override) or _is_choice(override.key_or_group):
            choices.append(override.input_line or "")
        else:
            values.append(override)
    composed = compose_choices(choices)
    _refuse_plugins_of_files(composed)
    set_values(composed, values)
    return resolved(composed)


def _refuse_plugins_of_files(composed: DictConfig) -> None:
    """A plugin is code that is imported: whoever types the command names it, not a file that may be another's."""
    raw = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(raw, dict)
    named = raw.get("plugins", [])
    if named != []:
        plain = isinstance(named, list) and all(isinstance(name, str) and _PACKAGE.fullmatch(name) for name in named)
        words = f"plugins=[{','.join(named)}]" if plain else "plugins=[...]"
        raise ConfigError(
            f"plugins: a configuration file names some, and a file imports no code; if you trust it, give {words} "
            "on the command line and take them out of the file"
        )
