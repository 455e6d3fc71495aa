"""Updates by torch.compile: the path of an accelerator, tried on the CPU."""

import re
import shutil
from pathlib import Path

import pytest

from rlexp.errors import ResourceError
from tests.experiment.support import TINY, rows_of, run_in

SHORT = ["algorithm=ppo", "env=cartpole", *TINY, "total_env_steps=512", "experience.rollout_length=32"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_is_that_of_torch_up_to_rounding(tmp_path: Path) -> None:
    def metrics(folder: str, *words: str) -> list[dict[str, float]]:
        return rows_of(run_in(tmp_path / folder, *SHORT, *words), "train")

    from torch._dynamo import reset
    from torch._dynamo.utils import counters

    reset()
    counters.clear()
    compiled, plain = metrics("compiled", "execution.compile=true"), metrics("plain", "execution.programs=false")
    assert counters["stats"]["unique_graphs"] > 0
    assert not counters["graph_break"]
    assert len(compiled) == len(plain) > 1
    for name in ("loss/actor", "loss/critic", "optimizer/grad_norm_actor"):  # of the first rollout, acted alike
        assert compiled[0][name] == pytest.approx(plain[0][name], rel=1e-4, abs=1e-6)


def test_without_a_compiler_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ResourceError, match=r"execution\.compile=true: torch\.compile needs a C\+\+ compiler"):
        run_in(tmp_path, *SHORT, "execution.compile=true")


@pytest.mark.parametrize("compiler", ["ccache g++", "no-such-g++"])
def test_a_compiler_that_torch_would_not_find_is_named(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(ResourceError, match=f"there is no program '{re.escape(compiler)}'; .*set CXX to one program"):
        run_in(tmp_path, *SHORT, "execution.compile=true")
