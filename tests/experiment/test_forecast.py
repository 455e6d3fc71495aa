"""What a run will write is forecast from above, and not by much."""

from collections import namedtuple
from pathlib import Path

import pytest

from rlexp.errors import ResourceError
from rlexp.experiment.build import make_learner
from rlexp.experiment.forecast import Forecast, check_space, forecast, readable
from rlexp.experiment.jobs import checked_jobs
from rlexp.storage import size_of
from tests.experiment.support import TINY, run_in

LINES = {
    "dqn": ["algorithm=dqn", "experience.learning_starts=100", "experience.capacity=700"],
    "sac": ["algorithm=sac", "env=pendulum", "network.hidden=[64]", "experience.learning_starts=700"],
    "ppo": ["algorithm=ppo", "experience.rollout_length=10", "seeds=[0,1]"],
}


def expected(words: list[str]) -> Forecast:
    (job,) = checked_jobs(words, multirun=False)
    return forecast(job.config, job.spec, make_learner(job.config, job.spec, job.schema)[1])


@pytest.mark.parametrize("line", LINES)
def test_checkpoints_are_at_most_as_large_as_forecast_and_at_least_half(line: str, tmp_path: Path) -> None:
    words = [*TINY, *LINES[line]]
    folder = run_in(tmp_path, *words)
    newest = max((folder / "checkpoints").glob("[0-9]*"))
    forecasted = expected(words)
    tensors = (newest / "tensors.safetensors").stat().st_size
    assert forecasted.checkpoint / 2 < tensors < forecasted.checkpoint + 10_000  # names, and open episodes
    rows = sum(path.stat().st_size for path in folder.rglob("rows.jsonl"))
    assert rows < forecasted.rows
    assert size_of(folder) < forecasted.total + 40_000


def test_what_does_not_fit_is_refused_and_says_what_would_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = Forecast(checkpoint=10**9, kept=3, weights=10**6, rows=10**6)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**12, 0, 2 * 10**9))
    with pytest.raises(
        ResourceError, match=r"3 GB \(3 checkpoints of 1 GB, rows of 1 MB\) and 2 GB are free; lower exp"
    ):
        check_space(needed, tmp_path)
    with open(tmp_path / "an earlier checkpoint", "wb") as file:
        file.truncate(2 * 10**9)
    assert check_space(needed, tmp_path) == "will write 3 GB (3 checkpoints of 1 GB, rows of 1 MB); 2 GB are free"
    assert check_space(needed._replace(checkpoint=10**6), tmp_path) is None


def test_images_and_rows_of_every_step_are_counted() -> None:
    base = expected([*LINES["dqn"], "total_env_steps=1000"])
    assert expected([*LINES["dqn"], "total_env_steps=1000", "logger.interval=1"]).rows > 9 * base.rows
    assert expected([*LINES["dqn"], "total_env_steps=1000", "logger=local"]).rows < base.rows
    assert expected([*LINES["dqn"], "experience.capacity=70000"]).checkpoint > 10 * base.checkpoint


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (3e15, "3e+03 TB")])
def test_sizes_are_readable(size: float, text: str) -> None:
    assert readable(size) == text
