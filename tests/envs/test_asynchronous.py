"""What may happen to a worker process, and that the parent always hears of it, soon, and leaves nothing behind."""

import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from rlexp.envs import asynchronous
from rlexp.envs.asynchronous import AsyncVector
from rlexp.envs.make import make_env
from rlexp.envs.sync import SyncVector
from rlexp.envs.vector import Vector, check_finite
from rlexp.errors import EnvironmentFailure, NonFiniteError, RlexpError
from tests.envs.toys import Counter, Faulty, Slow, counter_spec, simple_seed

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[..., AsyncVector]


@pytest.fixture
def vector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes vectors of three environments in two workers, 0 and 1 to 2; closing them must be quick."""
    monkeypatch.setattr(asynchronous, "GRACE", 0.3)
    made: list[AsyncVector] = []

    def opened(make: Callable[[], gymnasium.Env], deadline: float | None = 20.0, num_envs: int = 3) -> AsyncVector:
        made.append(AsyncVector(make, counter_spec(50), num_envs, simple_seed, 2, deadline))
        return made[-1]

    yield opened
    for each in made:
        processes = [worker.process for worker in each._workers]
        began = time.monotonic()
        each.close()
        each.close()
        assert time.monotonic() - began < 2.0
        assert not any(process.is_alive() for process in processes)


def play(vector: Vector, steps: int) -> None:
    vector.start()
    for _ in range(steps):
        vector.step(np.zeros(vector.num_envs, np.int64))
    check_finite(vector)


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(Faulty, "raise"),
        functools.partial(Faulty, "raise", where="reset", seed=200),
        functools.partial(Counter, rewards={3: float("nan")}),
        functools.partial(Counter, blind_at=4, ends_after=4),
    ],
    ids=["step", "reset", "running return", "last observation"],
)
def test_what_an_environment_does_wrong_is_the_line_of_sync_vector(make: Callable, vector: Make) -> None:
    """Also where the exception itself could not be sent."""
    lines = []
    for each in (SyncVector(make, counter_spec(50), 3, simple_seed), vector(make)):
        with pytest.raises(RlexpError) as caught:
            play(each, 6)
        lines.append((caught.value.code, str(caught.value)))
    assert lines[0] == lines[1]
    assert "environment " in lines[0][1]


def test_what_is_no_number_is_that_of_sync_vector(vector: Make) -> None:
    make = functools.partial(Counter, rewards={3: float("nan")}, ends_after=5)
    found = []
    for each in (SyncVector(make, counter_spec(50), 3, simple_seed), vector(make)):
        for steps in (3, 1, 7):
            with contextlib.suppress(NonFiniteError):
                play(each, steps)
            found.append(each.not_finite())
    assert found[:3] == found[3:]
    assert [one.env for one in found[-1]] == [0, 1, 2]


@pytest.mark.parametrize(
    "make",
    [functools.partial(Faulty, "raise", where="make"), functools.partial(make_env, "Nonsense-v0", {}, ("no_plugin",))],
)
def test_an_environment_that_cannot_be_made(make: Callable, vector: Make) -> None:
    with pytest.raises(EnvironmentFailure, match="Counter could not be made: ") as sync:
        SyncVector(make, counter_spec(50), 3, simple_seed)
    with pytest.raises(EnvironmentFailure) as asynchronous:
        vector(make)
    assert str(asynchronous.value) == str(sync.value)


def test_a_factory_that_does_not_pickle(vector: Make) -> None:
    with pytest.raises(EnvironmentFailure, match=r"Counter could not be made: .*pickle"):
        vector(lambda: Counter())


@pytest.mark.parametrize(
    ("fault", "where", "seed", "said"),
    [
        ("sleep", "step", 100, r"did not step its environments within 0\.3 s; environments \[1, 2\], episode seeds "),
        ("sleep", "step", 200, r"did not step its environments within 0\.3 s; environments \[1, 2\], episode seeds "),
        ("spin", "reset", 100, r"did not reset its environments within 0\.3 s; environments \[1, 2\], episode seeds "),
    ],
)
def test_a_hanging_environment_meets_the_deadline(fault: str, where: str, seed: int, said: str, vector: Make) -> None:
    """Also the second of a slice, whose first has moved."""
    hanging = vector(functools.partial(Faulty, fault, seed, where=where), None)
    hanging._deadline = 0.3
    with pytest.raises(EnvironmentFailure, match=rf"Counter: worker 1 \(process \d+\) {said}\[100, 200\]; ") as caught:
        play(hanging, 6)
    assert "\n" not in str(caught.value)


def test_an_environment_that_hangs_while_it_is_made_meets_the_deadline(vector: Make) -> None:
    with pytest.raises(
        EnvironmentFailure, match=r"worker 0 \(process \d+\) did not make its environments within 0.6 s"
    ):
        vector(functools.partial(Faulty, "sleep", where="make"), 0.6)


def test_slow_environments_that_move_do_not_meet_it(vector: Make) -> None:
    """0.3 s for the slice of three, 0.1 s for each."""
    slow = vector(Slow, None, 5)
    slow._deadline = 0.2
    play(slow, 1)
    assert slow.time.tolist() == [1] * 5


@pytest.mark.parametrize(("fault", "how"), [("kill", r"by SIGKILL \(out of memory\?\)"), ("exit", "with status 7")])
def test_a_worker_that_dies_is_named(fault: str, how: str, vector: Make) -> None:
    said = rf"Counter: worker 1 \(process \d+\) died {how}; environments \[1, 2\], episode seeds \[100, 200\]; "
    with pytest.raises(EnvironmentFailure, match=said):
        play(vector(functools.partial(Faulty, fault)), 6)


def test_a_worker_that_died_between_steps_is_named(vector: Make) -> None:
    alive = vector(Counter)
    play(alive, 3)
    os.kill(alive._workers[0].process.pid, signal.SIGKILL)
    time.sleep(0.1)
    for use in (alive.state_dict, alive.not_finite, functools.partial(play, alive, 1)):
        with pytest.raises(EnvironmentFailure, match=r"worker 0 .* died by SIGKILL.*environments \[0\]"):
            use()


def test_signals_to_the_whole_group_are_the_parents(vector: Make) -> None:
    """A terminal's or a scheduler's signal reaches workers and fork server too; the parent still needs them to save."""
    alive = vector(Counter)
    play(alive, 2)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        for worker in alive._workers:
            os.kill(worker.process.pid, number)
    server = multiprocessing.forkserver._forkserver
    os.kill(server._forkserver_pid, signal.SIGTERM)
    os.waitpid(server._forkserver_pid, 0)
    server._forkserver_pid = None
    play(alive, 2)
    assert [len(episode["actions"]) for episode in alive.state_dict()["episodes"]] == [4, 4, 4]


def test_the_wrong_number_of_actions_is_refused(vector: Make) -> None:
    with pytest.raises(EnvironmentFailure, match="takes 3 actions"):
        vector(Counter).step(np.zeros(2, np.int64))


def test_workers_need_no_torch() -> None:
    code = "import rlexp.envs.worker, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# --------------------------------------------------------------------------------------------------- the parent's end

PARENT = """
import functools, sys
import numpy as np
from rlexp.envs.asynchronous import AsyncVector
from tests.envs.toys import Faulty, counter_spec, simple_seed

if __name__ == "__main__":
    make = functools.partial(Faulty, sys.argv[1])
    vector = AsyncVector(make, counter_spec(50), 3, simple_seed, 3, None)
    vector.start()
    print(*(worker.process.pid for worker in vector._workers), flush=True)
    for _ in range(int(sys.argv[2])):
        vector.step(np.zeros(3, np.int64))
"""


def parent(tmp_path: Path, fault: str, steps: int) -> tuple[subprocess.Popen, list[int]]:
    """A process with three workers that steps until the fault, and the workers' numbers."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    path = os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(script), fault, str(steps)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    return process, [int(word) for word in process.stdout.readline().split()]


def lives(pid: int) -> bool:
    """Whether a process runs; one that has died and is yet to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_no_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    """One is deep in C code, the others wait for the next command."""
    process, workers = parent(tmp_path, "spin", 10)
    time.sleep(0.2)
    assert len(workers) == 3
    assert all(map(lives, workers))
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while any(map(lives, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = [worker for worker in workers if lives(worker)]
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert left == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_parent_that_forgets_to_close_ends(tmp_path: Path) -> None:
    process, workers = parent(tmp_path, "raise", 1)
    assert process.wait(20) == 0
    assert not any(map(lives, workers))
