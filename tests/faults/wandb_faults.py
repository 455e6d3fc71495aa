"""W&B servers on the loopback that fail, and what a run that is to be mirrored there is given."""

import contextlib
import io
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.experiment.wandb_server import Answering, Handler
from tests.faults.lab import ROOT, wait_until

KEY = "0123456789" * 4
MIRRORED = ["algorithm=ppo", "experience.num_envs=2", "experience.rollout_length=20", "total_env_steps=800"]
MIRRORED += ["logger.interval=40", "evaluation.interval=400", "evaluation.episodes=2", "evaluation.final_episodes=3"]
MIRRORED += ["evaluation.num_envs=2", "display=plain", "checkpoint.interval=300"]
"""As lab.SMALL, with W&B."""


class Failing(Answering):
    """A server that answers late, with another status, or never again once it hears of the run's end.

    bodies: all that was sent to it, head and body.  port: of an earlier server, whose history goes on.
    """

    def __init__(
        self, *, status: int = 200, delay: float = 0.0, stalls_at_the_end: bool = False, after: Answering | None = None
    ) -> None:
        super().__init__(after.server_address[1] if after else 0)
        self.RequestHandlerClass = FailingHandler
        self.status, self.delay, self.stalls_at_the_end = status, delay, stalls_at_the_end
        self.given_up = threading.Event()  # nobody waits any more
        self.bodies: list[bytes] = []
        if after is not None:
            self.history, self.summary, self.known = after.history, after.summary, after.known


class FailingHandler(Handler):
    server: Failing

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.bodies.append(f"{self.path}\n{self.headers}".encode() + body)
        self.rfile = io.BytesIO(body)
        if server.delay:
            server.given_up.wait(server.delay)
        if server.stalls_at_the_end and b'"complete":true' in body:
            server.given_up.wait()
        if server.status != 200:
            self.send_response(server.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        with contextlib.suppress(OSError):  # whoever asked has gone
            super().do_POST()

    do_GET = do_PUT = do_POST


@contextlib.contextmanager
def serving(server: Failing) -> Iterator[Failing]:
    """Serves inside the block; afterwards its port is closed."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.given_up.set()
        server.shutdown()
        server.server_close()
        thread.join()


def account(folder: Path, url: str | None, *, init_timeout: float | None = None) -> dict[str, str]:
    """The environment variables of a person with a key for the server at `url`, and one without a key where it is None.

    init_timeout: of the mirror, in seconds; None: as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    variables = {"HOME": str(folder), "NETRC": str(folder / "none"), "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "0.2"}
    if url is not None:
        variables |= {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY}
    if init_timeout is not None:
        (folder / "sitecustomize.py").write_text(
            "import sys\n"
            'if "rlexp.experiment.wandb_process" in sys.orig_argv:\n'
            "    import rlexp.experiment.wandb_run\n"
            f"    rlexp.experiment.wandb_run.INIT_TIMEOUT = {init_timeout}\n"
        )
        variables["PYTHONPATH"] = f"{folder}:{ROOT / 'src'}:{ROOT}"
    return variables


def mirrors_of(outputs: Path) -> list[int]:
    """Processes that mirror runs below a folder, and those that W&B started for them."""
    words: dict[int, list[str]] = {}
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words[int(path.name)] = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [
        pid
        for pid, line in words.items()
        if "rlexp.experiment.wandb_process" in line and any(word.startswith(f"{outputs}/") for word in line)
    ]
    return found + [pid for pid, parent in parents.items() if parent in found]


def kill_mirrors(outputs: Path) -> int:
    """SIGKILL to each of them; returns how many they were."""
    found = mirrors_of(outputs)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not mirrors_of(outputs), what="the end of the mirrors")
    return len(found)
