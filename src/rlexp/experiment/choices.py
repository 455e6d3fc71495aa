"""What the groups of the configuration hold, and what a set of choices composes.

Hydra reads some twenty files for each job and takes 80 ms for it; the jobs of a sweep mostly differ in values alone. So
choices are composed once for as long as their files stay as they are, and values are set on a copy. Hydra's own groups
are left out where nothing asks for them: they are half of the work.
"""

import copy
import os
from collections.abc import Iterable, Sequence

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from rlexp.errors import ConfigError, nearest

Stamps = tuple[tuple[str, tuple[int, int] | None], ...]
"""Paths, each with the time and size of what lies there, None where nothing does."""

_groups: dict[Stamps, frozenset[str]] = {}
_composed: dict[tuple[str, ...], tuple[Stamps, DictConfig]] = {}

ROOM = 200  # compositions that are remembered


def groups() -> frozenset[str]:
    """The names of the groups. Hydra must be initialised, here and below."""
    stamps = _stamps(_folders())
    if stamps not in _groups:
        _groups[stamps] = frozenset(_loader().list_groups("")) - {"hydra"}
    return _groups[stamps]


def compose_choices(lines: Sequence[str]) -> DictConfig:
    """The configuration that these choices make, without a node for Hydra: the caller's own.

    Raises ConfigError for a choice that there is not, and Hydra's own errors.
    """
    key = (*_folders(), *lines)
    stamps, composed = _composed.get(key, (None, None))
    if composed is None or stamps != _stamps(path for path, _ in stamps or ()):
        _check_choices(lines)
        stamps, composed = _compose(lines)
        if stamps is not None:
            if len(_composed) >= ROOM:
                _composed.clear()
            _composed[key] = (stamps, composed)
    return copy.deepcopy(composed)


def set_values(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Set, add and delete values, in this order, as Hydra does."""
    ConfigLoaderImpl._apply_overrides_to_config(list(overrides), config)


def _check_choices(lines: Sequence[str]) -> None:
    for line in lines:
        key, _, value = line.partition("=")
        group = key.lstrip("+~").split("@")[0]
        if line.startswith(("~", "++")) or group not in groups() or value in ("null", ""):
            continue
        options = _loader().get_group_options(group)
        if value not in options:
            hint = nearest(value, options)
            raise ConfigError(f"{group}={value}: there is no such {group}{hint}; choose one of {', '.join(options)}")


def _compose(lines: Sequence[str]) -> tuple[Stamps | None, DictConfig]:
    """What the choices compose, and the files that it depends on; None where they are not known."""
    try:
        stamps, composed = _compose_ours(lines)
    except (HydraException, OmegaConfBaseException):  # it may ask for one of Hydra's groups; else this raises the same
        return None, compose(config_name="config", overrides=list(lines))
    if "hydra" in composed:
        with open_dict(composed):
            del composed["hydra"]
    return stamps, composed


def _compose_ours(lines: Sequence[str]) -> tuple[Stamps | None, DictConfig]:
    """Hydra's own composition (`ConfigLoaderImpl._load_configuration_impl`) of all but its own groups."""
    loader = _loader()
    overrides, repository = loader._parse_overrides_and_create_caching_repo("config", list(lines))
    chosen = create_defaults_list(
        repo=repository, config_name="config", overrides_list=overrides, prepend_hydra=False, skip_missing=False
    )
    composed = loader._compose_config_from_defaults_list(defaults=chosen.defaults, repo=repository)
    OmegaConf.set_struct(composed, True)
    set_values(composed, chosen.config_overrides)
    return _files_of(repository), composed


def _files_of(repository: CachingConfigRepository) -> Stamps | None:
    """All that was read, and what would have been read in its place; None where a file added folders of its own."""
    folders = _folders()
    sources = {source.path for source in repository.get_sources() if source.scheme() == "file"}
    if sources != set(folders):
        return None
    names = [key.removeprefix("config_path=") for key in repository.cache]
    return _stamps(os.path.join(folder, f"{name.removesuffix('.yaml')}.yaml") for folder in folders for name in names)


def _loader() -> ConfigLoaderImpl:
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    return loader


def _folders() -> list[str]:
    """Where files are looked for, the first first; other sources are parts of installed packages."""
    paths = [(element.path or "").removeprefix("file://") for element in _loader().get_search_path().get_path()]
    return [path for path in paths if "://" not in path]


def _stamps(paths: Iterable[str]) -> Stamps:
    return tuple((path, _stamp(path)) for path in paths)


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
