"""What this process does to the world while somebody watches, told by Python's own audit events."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

_HARM = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.mkdir", "os.remove",
    "os.rename", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod", "os.chown", "os.putenv", "pty.spawn",
    "subprocess.Popen", "shutil.", "tempfile.", "socket.connect", "socket.bind", "urllib.Request", "ctypes.dlopen",
    "pickle.find_class", "webbrowser.open",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ALLOWED_VARIABLE = "RLEXP_CONF_DIR"  # --config-dir sets it

_seen: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITING and str(path) != os.devnull:
            _seen.append(f"open {path} for writing")
    elif event == "import":
        if str(arguments[0]).startswith("canary"):
            _seen.append(f"import {arguments[0]}")
    elif event.startswith(_HARM) and not (event == "os.putenv" and _ALLOWED_VARIABLE in str(arguments[0])):
        _seen.append(f"{event}{arguments}"[:200])


sys.addaudithook(_hook)  # it cannot be taken back, and costs nothing while nobody watches


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """The harm done inside the block: files opened for writing, processes, connections, modules called canary*."""
    global _seen
    _seen = found = []
    try:
        yield found
    finally:
        _seen = None
