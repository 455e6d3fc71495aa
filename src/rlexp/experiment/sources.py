"""Configuration files as what strangers may have written: read within bounds, and no code of theirs is imported.

Hydra reads a file through the source of its scheme; the two classes here stand in for its own.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

from rlexp.errors import ConfigError

MOST_BYTES = 1_000_000
MOST_NODES = 20_000  # of a file, what its aliases stand for counted each time
MOST_LEVELS = 50  # Hydra's own recursion ends at about 90

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where it was built


class BoundedFiles(FileConfigSource):
    """Files of a folder, each looked at before it is read whole."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path) / self._normalize_file_name(config_path)
        if path.exists():
            refuse_boundless(path)
        return super().load_config(config_path)


class InstalledPackages(ImportlibResourcesConfigSource):
    """Hydra's own files and those of installed plugins; `hydra.searchpath` cannot add packages: each is imported."""

    def __init__(self, provider: str, path: str) -> None:
        if provider.startswith("hydra.searchpath"):
            raise ConfigError(f"hydra.searchpath: {path} would be imported; name a folder, file://...")
        super().__init__(provider, path)


def read_within_bounds() -> None:
    """From now on Hydra reads by the classes above."""
    Plugins.instance()  # registers its own
    SourcesRegistry.instance().types.update(file=BoundedFiles, pkg=InstalledPackages)


def refuse_boundless(path: Path) -> None:
    """Raises ConfigError for a file that would exhaust who reads it; what is no YAML is left to the reader."""
    if path.exists() and not path.is_file():  # a pipe would be waited for, a device has no end
        raise ConfigError(f"{path}: is no regular file")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{path}: is larger than {MOST_BYTES:,} bytes; a configuration file is a page or two")
    try:
        for levels, nodes in _growth(data):
            if levels > MOST_LEVELS:
                raise ConfigError(f"{path}: is nested deeper than {MOST_LEVELS} levels")
            if nodes > MOST_NODES:
                raise ConfigError(f"{path}: holds more than {MOST_NODES:,} values, those that aliases repeat included")
    except (yaml.YAMLError, ValueError, RecursionError):
        return


def _growth(data: bytes) -> Iterator[tuple[int, int]]:
    """After each event of the parser: the levels open, and the nodes so far with what each alias stands for."""
    open_nodes: list[tuple[str | None, int]] = []  # anchor, nodes before it
    sizes: dict[str, int] = {}
    nodes = 0
    for event in yaml.parse(data, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            nodes += sizes.get(event.anchor or "", MOST_NODES)  # of one that is still open: it holds itself
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, nodes))
            nodes += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        yield len(open_nodes), nodes
