"""`_target_`: a name in a configuration to a class or function, by identity, inside allowed packages alone.

A prefix is not enough: `torch.nn.functional.torch.os.mkdir` begins well. Each step of the path must stay inside, and
the object's own `__module__` too. Nothing outside the allowed packages is imported.
"""

import importlib
import inspect
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from rlexp.errors import ConfigError, nearest

ALLOWED = (
    "rlexp.algorithms",
    "rlexp.experience",
    "rlexp.functional",
    "rlexp.networks",
    "rlexp.optimization",
    "torch.nn",
    "torch.optim",
)


def resolve(path: str, where: str, plugins: Sequence[str] = ()) -> Callable[..., Any]:
    """The class or function that `path` names.

    Raises ConfigError where it does not exist or leaves the allowed packages (`ALLOWED` and the plugins).
    """
    allowed = (*ALLOWED, *plugins)
    root = next((package for package in allowed if path.startswith(package + ".")), None)
    if root is None:
        raise ConfigError(
            f"{where}._target_={path}: only names inside {', '.join(allowed)} are allowed; "
            "a package of your own needs an entry point 'rlexp.plugins' or plugins=[PACKAGE]"
        )
    current: Any = import_package(root, where)
    for step in path[len(root) + 1 :].split("."):
        following = getattr(current, step, None)
        if following is None and isinstance(current, ModuleType):
            following = _submodule(current, step)
        if following is None:
            known = [name for name in dir(current) if not name.startswith("_")]
            raise ConfigError(f"{where}._target_={path}: there is no '{step}'{nearest(step, known)}")
        current = following
        if not _inside(current, allowed):
            raise ConfigError(f"{where}._target_={path}: '{step}' leads out of the allowed packages")
    if not (inspect.isclass(current) or inspect.isfunction(current)):
        raise ConfigError(f"{where}._target_={path}: names neither a class nor a function")
    found: Callable[..., Any] = current
    return found


def import_package(name: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a plugin's own import may raise anything
        raise ConfigError(f"{where}: package {name} cannot be imported: {type(error).__name__}: {error}") from error


def _submodule(module: ModuleType, step: str) -> ModuleType | None:
    if not step.isidentifier():
        return None
    try:
        return importlib.import_module(f"{module.__name__}.{step}")
    except ImportError:
        return None


def _inside(found: Any, allowed: Sequence[str]) -> bool:
    home = found.__name__ if isinstance(found, ModuleType) else getattr(found, "__module__", None)
    return isinstance(home, str) and any(home == package or home.startswith(package + ".") for package in allowed)
