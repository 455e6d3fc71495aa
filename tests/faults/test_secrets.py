"""Planted secrets: each is looked for in every byte that a run leaves or sends."""

import gzip
import json
import subprocess
import sys
import zlib
from pathlib import Path

from rlexp.storage import read_json
from tests.experiment.wandb_runs import no_account
from tests.faults.lab import SMALL, Launched, run_below
from tests.faults.liar import PLUGIN
from tests.faults.wandb_faults import KEY, MIRRORED, Failing, account, kill_mirrors, serving

__all__ = ["no_account"]

CANARY = b"cnry"  # each planted secret begins so

HIDDEN = {
    "credentials": "{user: cnry-nested, more: [cnry-listed, {pin: cnry-below}]}",
    "openaiApiKey": "cnry-camel",
    "url": "'https://me:cnry-value@example.org/x?key=<CANARY_TOKEN>'",
}
"""Keyword arguments with secrets that do not stand directly under a key of theirs."""


def plant(tmp_path: Path) -> list[str]:
    """A checkout whose remote has a password, and a configuration with one; returns the words of a command line."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    remote = "https://me:cnry-git@example.org/x.git"
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", remote], check=True)
    (tmp_path / "conf" / "env").mkdir(parents=True)
    declared = (Path(__file__).parent / "conf" / "env" / "liar.yaml").read_text()
    (tmp_path / "conf" / "env" / "liar.yaml").write_text(
        declared.replace("kwargs: {}", "kwargs: {password: cnry-conf}")
    )
    words = ["--config-dir", str(tmp_path / "conf"), *PLUGIN[2:], "env.kwargs.api_key=cnry-override"]
    words += [f"env.kwargs.{key}={value}" for key, value in HIDDEN.items()]
    return [*words, "tags=['https://me:cnry-argument@example.org/x']"]


def leaks(outputs: Path, sent: list[bytes] = []) -> list[str]:  # noqa: B006
    """Where a secret is: files below a folder, as they are and decompressed, and what was sent."""
    found = []
    for path in sorted(outputs.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            texts = [data, str(path).encode()]
            for decompress in (gzip.decompress, zlib.decompress):
                try:
                    texts.append(decompress(data))
                except (OSError, EOFError, zlib.error):
                    continue
            if any(CANARY in text or KEY.encode() in text for text in texts):
                found.append(str(path.relative_to(outputs)))
    return found + [body.decode(errors="replace")[:200] for body in sent if CANARY in body]


def test_f58_no_secret_in_a_file_of_a_run_or_in_a_request(tmp_path: Path) -> None:
    """Secrets in environment variables, overrides, configuration, a remote's URL, arguments, an exception's text and
    what is printed, also inside longer texts and in lists and mappings, are in no file of the run, W&B's own among
    them, in no request and in no error message."""
    words, outputs = plant(tmp_path), tmp_path / "outputs"
    with serving(Failing()) as server:
        variables = account(tmp_path / "home", server.url) | {
            "CANARY_TOKEN": "cnry-environment",
            "LIAR": json.dumps({"fault": "tell", "step": 205}),
        }
        line = [*words, *MIRRORED, "logger.wandb.mode=online", f"outputs={outputs}"]
        run = Launched(tmp_path / "said", *line, cwd=tmp_path, environment=variables)
        assert run.end() == 3
        kill_mirrors(outputs)
        assert 3 in server.exit_codes
        assert len(server.rows()) > 1
    assert leaks(outputs, server.bodies) == []
    assert "cnry" not in "\n".join(run.errors())
    folder = run_below(outputs)
    assert folder is not None
    kwargs = {"password": "<PASSWORD>", "api_key": "<API_KEY>"}
    assert "api_key: <API_KEY>" in (folder / "config.yaml").read_text()
    assert "https://example.org/x with token=<TOKEN> and <CANARY_TOKEN>; environment" in run.errors()[-1]
    assert all(
        any(f'"{value}"'.encode() in body or value.encode() in body for body in server.bodies) for value in kwargs
    )
    assert any(path.name.endswith(".wandb") for path in outputs.rglob("*"))


def test_f58_no_secret_in_a_file_of_a_sweep(tmp_path: Path) -> None:
    """As in a run, also in the plan of a sweep, in what its jobs said, what they printed included, and in what
    `--cfg job` shows."""
    words, outputs = plant(tmp_path), tmp_path / "outputs"
    told = {"CANARY_TOKEN": "cnry-environment", "LIAR": json.dumps({"fault": "tell", "step": 205})}
    line = ["-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *words, *SMALL, f"outputs={outputs}"]
    shown = Launched(tmp_path / "shown", *line, "--cfg", "job", cwd=tmp_path, environment=told)
    assert shown.end() == 0
    assert any(said.endswith("pin: <CREDENTIALS_3>") for said in shown.output())
    assert "cnry" not in "\n".join([*shown.errors(), *shown.output()])
    run = Launched(tmp_path / "said", *line, cwd=tmp_path, environment=told)
    assert run.end() == 3
    (log, _) = sorted(outputs.glob(".multirun/*/job_*.log"))
    assert "signed in as me, password: <PASSWORD>; <CANARY_TOKEN>" in log.read_text()
    assert leaks(outputs) == []
    assert "cnry" not in "\n".join([*run.errors(), *run.output()])


def test_f58_a_saved_run_asks_the_environment_for_its_secrets(tmp_path: Path) -> None:
    """A run whose environment needs a secret can be evaluated where the environment has it, else a line names it."""
    outputs, environment = tmp_path / "outputs", {"MY_API_KEY": "cnry-mine"}
    words = [*PLUGIN, 'env.kwargs={api_key: "<MY_API_KEY>"}', *SMALL, "display=none", f"outputs={outputs}"]
    assert Launched(tmp_path / "said", *words, environment=environment).end() == 0
    folder = run_below(outputs)
    assert folder is not None
    command = [sys.executable, "-c", "from rlexp.cli.evaluate import main; main()", str(folder)]
    arguments = ["--episodes", "5", "--plugin", "tests.faults.liar"]
    assert Launched(tmp_path / "with", *arguments, command=command, environment=environment).end() == 0
    without = Launched(tmp_path / "without", *arguments, command=command)
    assert without.end() == 2
    assert (
        "env.kwargs.api_key=<MY_API_KEY>: is a secret, which is not saved; set the environment" in without.errors()[-1]
    )
    assert leaks(outputs) == []
    assert read_json(folder / "status.json")["state"] == "finished"
