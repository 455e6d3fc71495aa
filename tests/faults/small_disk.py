"""A real file system of a few hundred kilobytes, for real processes, without harm to anybody's."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

_LIBC = ctypes.CDLL(None, use_errno=True)


class SmallDisk:
    """A tmpfs at `path`, in a mount namespace of its own, which a process sees that called `enter`.

    options: of the mount, such as "size=200k" or "size=1M,ro".  seen: where this process finds what lies on it.
    """

    def __init__(self, path: Path, options: str) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        script = 'mount -t tmpfs -o "$1,mode=0755" none "$2" && echo ready && exec sleep 600'
        self._holder = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", script, "sh", options, str(path)], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            self.remove()
            pytest.skip("this machine lets nobody mount a file system in a namespace of their own")
        self.seen = Path(f"/proc/{self._holder.pid}/root{path.resolve()}")

    def enter(self) -> None:
        """For a forked process with one thread: from now on it sees the disk."""
        for kind in ("user", "mnt"):
            descriptor = os.open(f"/proc/{self._holder.pid}/ns/{kind}", os.O_RDONLY)
            if _LIBC.setns(descriptor, 0) != 0:
                number = ctypes.get_errno()
                raise OSError(number, f"setns {kind}: {os.strerror(number)}")
            os.close(descriptor)

    def free(self) -> int:
        return shutil.disk_usage(self.seen).free

    def fill(self, left: int = 0) -> None:
        """Somebody else's file takes all of it but `left` bytes."""
        with open(self.seen / "filler", "wb") as file:
            while self.free() > left:
                try:
                    file.write(bytes(min(65536, max(1, self.free() - left))))
                    file.flush()
                except OSError:
                    break

    def make_room(self) -> None:
        (self.seen / "filler").unlink()

    def remove(self) -> None:
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()
