"""F56: configurations made by somebody who wants their reader to run code, write, or run out of memory."""

import contextlib
import io
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from rlexp.cli.check import command as check_command
from rlexp.cli.common import guarded
from rlexp.cli.evaluate import command as evaluate_command
from rlexp.errors import ConfigError
from rlexp.experiment.check import check
from rlexp.experiment.compose import conf_dir
from rlexp.experiment.jobs import checked_jobs
from rlexp.experiment.targets import resolve
from tests.faults.audit import watched

ELSEWHERE = {
    "F56": [
        "tests/cli/test_check_fuzz.py::test_any_words_at_all_are_answered_with_one_line",
        "tests/cli/test_check_fuzz.py::test_any_configuration_file_at_all_is_answered_with_one_line",
        "tests/experiment/test_config.py::test_targets_outside_the_allowed_packages_are_refused",
    ]
}

TARGETS = """
os.system os.popen os.mkdir os.remove os.rename os.execv os.putenv os.kill os.fork posix.system subprocess.run
subprocess.Popen subprocess.check_output subprocess.os.system logging.os.system logging.config.dictConfig
logging.FileHandler timeit.timeit builtins.open builtins.eval builtins.exec builtins.compile builtins.__import__
builtins.getattr builtins.setattr io.open io.FileIO pathlib.Path.write_text pathlib.Path.unlink pathlib.Path
shutil.copyfile shutil.rmtree shutil.os.system tempfile.mkdtemp tempfile.NamedTemporaryFile numpy.load numpy.save
numpy.fromfile numpy.memmap pickle.load pickle.loads marshal.loads shelve.open sqlite3.connect urllib.request.urlopen
http.client.HTTPConnection socket.create_connection socket.socket webbrowser.open runpy.run_path runpy.run_module
importlib.import_module code.interact pdb.run pty.spawn ctypes.CDLL multiprocessing.Process threading.Thread
atexit.register sys.exit sys.setrecursionlimit codecs.open zipfile.ZipFile torch.load torch.save torch.hub.load
torch.jit.load torch.utils.cpp_extension.load torch.classes.load_library torch.nn.functional.torch.os.mkdir
torch.optim.adam.torch.save torch.nn.modules.module.torch.load torch.nn.init.warnings hydra.utils.instantiate
hydra.utils.get_method hydra.utils.call omegaconf.OmegaConf.save omegaconf.OmegaConf.register_new_resolver
yaml.unsafe_load gymnasium.make gymnasium.register wandb.init safetensors.torch.save_file rlexp.storage.remove
rlexp.storage.write_atomic rlexp.storage.make_directory rlexp.cli.main.main rlexp.experiment.targets.resolve
rlexp.experiment.targets.ALLOWED.append rlexp.experiment.rules.SPACE_RULES rlexp.algorithms.ppo.torch.os.system
rlexp.algorithms.ppo.PPO.__init__.__globals__.get rlexp.networks.torso.MLP.__class__.__base__.__subclasses__
rlexp.experience.replay.np.load
""".split()  # noqa: SIM905
"""Callables that would do harm, or lead to one that does."""

PPO = (conf_dir() / "algorithm" / "ppo.yaml").read_text()
CARTPOLE = (conf_dir() / "env" / "cartpole.yaml").read_text()
CONFIG = (conf_dir() / "config.yaml").read_text()
GLOBAL = "# @package _global_\n"
MEMORY = 200_000  # kB that a refusal may take


@pytest.fixture(autouse=True)
def own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--config-dir` sets it; and torch and Hydra are imported before anybody is watched."""
    monkeypatch.setenv("RLEXP_CONF_DIR", "")
    checked_jobs([], multirun=False)


@contextlib.contextmanager
def refused(tmp_path: Path) -> Iterator[Callable[[list[str]], str]]:
    """Gives what checks a command line and returns its complaint, one line; no harm may be done meanwhile."""

    def ask(words: list[str], command: Callable[[list[str]], int] = check_command) -> str:
        before = sorted(str(path) for path in tmp_path.rglob("*"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with contextlib.redirect_stderr(io.StringIO()) as stderr, watched() as harm:
            code = guarded(lambda: command(words))
        said = stderr.getvalue()
        assert (code, said.count("\n")) == (2, 1), f"{words}: {code} {said}"
        assert said.startswith("rlexp: error[2]: ")
        assert harm == []
        assert sorted(str(path) for path in tmp_path.rglob("*")) == before
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MEMORY
        return said

    yield ask


def write(folder: Path, name: str, text: str | bytes) -> list[str]:
    """A file of a configuration folder; returns the words that take the folder."""
    path = folder / "conf" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return ["--config-dir", str(folder / "conf")]


@pytest.mark.parametrize("target", TARGETS)
def test_f56_a_target_that_does_harm_is_refused_in_every_place(target: str, tmp_path: Path) -> None:
    """Ninety callables that write, remove, import, connect or start processes as the `_target_` of each part, of a
    schedule and of a rule: refused, and nothing of them runs.
    """
    with pytest.raises(ConfigError):
        resolve(target, "algorithm")
    with refused(tmp_path) as ask:
        for place in ("algorithm", "network", "experience", "estimator", "optimizer", "optimizer.rule"):
            ask([f"++{place}._target_={target}"])
        for place in ("algorithm.clip_ratio", "optimizer.learning_rate", "algorithm.gamma", "env.id"):
            ask([f"++{place}={{_target_: {target}, command: touch, path: canary, file: canary, args: [canary]}}"])
        for group in ("exploration", "baseline", "normalization"):
            ask([f"++{group}={{_target_: {target}}}"])


HOSTILE = {
    "a tag that runs a command": ("env/x.yaml", "!!python/object/apply:os.system ['touch canary']\n"),
    "a tag that makes an object": ("env/x.yaml", CARTPOLE.replace("{}", "{a: !!python/object/new:os.mkdir [x]}", 1)),
    "a tag that names a function": ("env/x.yaml", CARTPOLE.replace("{}", "{a: !!python/name:os.system }", 1)),
    "a tag that imports": ("env/x.yaml", CARTPOLE.replace("{}", "{a: !!python/module:canary_module }", 1)),
    "a tag of its own": ("env/x.yaml", "!canary {a: 1}\n"),
    "an environment variable": ("experiment/x.yaml", GLOBAL + "tags: ['${oc.env:HOME}']\n"),
    "the clock": ("experiment/x.yaml", GLOBAL + "tags: ['${now:%Y}']\n"),
    "a resolver whose name is made": ("experiment/x.yaml", GLOBAL + "outputs: oc.env\ntags: ['${${outputs}:HOME}']\n"),
    "Hydra's own node": ("experiment/x.yaml", GLOBAL + "tags: ['${hydra:runtime.cwd}']\n"),
    "a decoder": ("experiment/x.yaml", GLOBAL + "seed: ${oc.decode:'5'}\n"),
    "a plugin": ("experiment/x.yaml", GLOBAL + "plugins: [canary_module]\n"),
    "a plugin by a reference": ("experiment/x.yaml", GLOBAL + "tags: [canary_module]\nplugins: ${tags}\n"),
    "a plugin in the main file": ("config.yaml", CONFIG.replace("plugins: []", "plugins: [canary_module]")),
    "a package on the search path": ("config.yaml", f"{CONFIG}  searchpath: ['pkg://canary_module']\n"),
    "a target in a schedule": ("experiment/x.yaml", GLOBAL + "algorithm: {clip_ratio: {_target_: os.system}}\n"),
    "a target in the environment": ("experiment/x.yaml", GLOBAL + "env: {id: {_target_: os.system}}\n"),
    "bytes": ("env/x.yaml", CARTPOLE.replace("{}", "{a: !!binary aGVsbG8=}", 1)),
    "keys that are no text": ("env/x.yaml", CARTPOLE.replace("{}", "{1: 2, b: 3}", 1)),
    "a terminal's commands": ("experiment/x.yaml", GLOBAL + '"\\x1b[2J\\x1b]0;canary\\a": 1\n'),
    "half a character": ("experiment/x.yaml", GLOBAL + 'outputs: "\\ud800"\n'),
    "a number without end": ("experiment/x.yaml", GLOBAL + f"seed: 0x{'f' * 60_000}\n"),
    "levels without end": ("env/x.yaml", "id: " + "[" * 100_000 + "]" * 100_000),
    "an alias of itself": ("env/x.yaml", "id: &a [*a]\n"),
    "aliases of aliases": (
        "experiment/x.yaml",
        GLOBAL + "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(9)),
    ),
    "references to references": (
        "experiment/x.yaml",
        GLOBAL + "a0: xxxxxxxxxx\n" + "".join(f"a{i + 1}: {f'${{a{i}}}' * 10}\n" for i in range(9)) + "device: ${a9}\n",
    ),
    "lists of references": (
        "experiment/x.yaml",
        GLOBAL + "a0: [x]\n" + "".join(f"a{i + 1}: [{', '.join([f'${{a{i}}}'] * 10)}]\n" for i in range(9)),
    ),
    "references through references": (
        "experiment/x.yaml",
        GLOBAL + "p: {a0: x, q: '${p}'}\n" + "tags: ['${p.q.q.a0}']\n",
    ),
    "a circle of references": ("experiment/x.yaml", GLOBAL + "seed: ${total_env_steps}\ntotal_env_steps: ${seed}\n"),
    "files that name each other": ("env/x.yaml", "defaults:\n  - x\n"),
    "a file above its folder": ("env/x.yaml", "defaults:\n  - ../../../../../../etc/passwd\n"),
    "more than a megabyte": ("env/x.yaml", CARTPOLE + "# " + "x" * 2_000_000),
    "no YAML": ("env/x.yaml", b"\x00\xff\xfe\x00"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_f56_a_hostile_file_runs_nothing_and_exhausts_nothing(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of a configuration folder with Python tags, resolvers, plugins, packages to import, aliases and references
    that grow without end, and what is no YAML: one line, exit code 2, nothing runs, nothing is written, memory
    stays bounded.
    """
    name, text = HOSTILE[what]
    (tmp_path / "canary_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = write(tmp_path, name, text)
    group = name.partition("/")[0]
    with refused(tmp_path) as ask:
        said = ask([*words, *([] if name == "config.yaml" else [f"{group}=x"])])
    assert "\x1b" not in said


@pytest.mark.parametrize("kind", ["a pipe", "a device", "another's memory", "an endless file"])
def test_f56_what_is_no_ordinary_file_is_not_read(kind: str, tmp_path: Path) -> None:
    """A pipe, a device, a file that cannot be read and a file of a terabyte in a configuration folder: refused in one
    line, without waiting and without filling the memory.
    """
    words = write(tmp_path, "env/y.yaml", CARTPOLE)
    path = tmp_path / "conf" / "env" / "x.yaml"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "an endless file":
        with path.open("wb") as file:
            file.truncate(10**12)
    else:
        path.symlink_to("/dev/zero" if kind == "a device" else "/proc/1/mem")
    with refused(tmp_path) as ask:
        ask([*words, "env=x"])


def test_f56_a_sweep_without_end_is_refused(tmp_path: Path) -> None:
    """A sweep of a thousand million jobs: one line and exit code 2 at once, instead of a full memory."""
    with refused(tmp_path) as ask:
        ask(["-m", "seed=range(0,1000000000)"])
        ask(["-m", "seed=range(0,300)", "algorithm.gamma=range(0,1,0.001)"])
        ask(["-m", "seed=shuffle(range(0,1000000000))"])


HOSTILE_SAVED = {
    "a tag": "!!python/object/apply:os.system ['touch canary']\n",
    "aliases of aliases": HOSTILE["aliases of aliases"][1],
    "an alias of itself": "a: &a [*a]\n",
    "levels without end": "[" * 100_000,
    "no mapping": "[]\n",
    "no YAML": "\x00",
}


@pytest.mark.parametrize("what", HOSTILE_SAVED)
def test_f56_the_configuration_in_a_run_s_folder_is_read_alike(what: str, tmp_path: Path) -> None:
    """A run's folder from somebody else, its config.yaml with a Python tag, or growing without end: `rlexp-evaluate`
    refuses it in one line, nothing runs.
    """
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_bytes(str(HOSTILE_SAVED[what]).encode())
    with refused(tmp_path) as ask:
        ask([str(tmp_path / "run")], evaluate_command)
        ask([f"extend={tmp_path / 'run'}", "total_env_steps=200000"])


def test_f56_a_saved_configuration_brings_no_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saved config.yaml that names plugins and targets in them: nothing is imported unless the user names the
    package.
    """
    (tmp_path / "canary_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = checked_jobs([], multirun=False)[0].config
    saved = yaml.safe_load(yaml.safe_dump({**config, "plugins": ["canary_module"]}))
    saved["network"]["_target_"] = "canary_module.Mine"
    with watched() as harm, pytest.raises(ConfigError, match="only names inside"):
        check(saved, trusted_plugins=[])
    assert harm == []


def test_f56_the_watcher_sees_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the tests above would notice: files written, processes started and modules imported are all seen."""
    (tmp_path / "canary_seen.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with watched() as harm:
        (tmp_path / "written").write_text("x")
        os.system("true")
        import canary_seen  # type: ignore[import-not-found]  # noqa: F401
    assert [line.split()[0].partition("(")[0] for line in harm] == ["open", "os.system", "import"]
