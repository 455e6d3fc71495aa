"""The walls of the house: who may import whom, who writes, who draws random numbers."""

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from tests import source
from tests.conftest import CONF

ROOT = CONF.parent / "src"
FLOORS = {
    "types": 0, "errors": 0, "ranges": 0, "streams": 0, "clock": 0, "trees": 0, "storage": 0, "redaction": 0,
    "functional": 1,
    "networks": 2, "optimization": 2, "programs": 2,
    "state": 3, "envs": 3, "data": 3,
    "algorithms": 4, "experience": 4, "seeds": 4,
    "experiment": 5,
    "cli": 6,
    "__main__": 7,
}  # fmt: skip
FILES = {source.module_name(path, ROOT): path for path in sorted((ROOT / source.PACKAGE).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
IMPORTS = {name: set(source.imports(tree, set(FILES))) for name, tree in TREES.items()}
every_module = pytest.mark.parametrize("module", FILES)


def part(module: str) -> str:
    """The package or top-level module that a module belongs to; empty for the package itself."""
    return [*module.split("."), ""][1]


def ours(module: str) -> set[str]:
    return {name for name in IMPORTS[module] if name.split(".")[0] == source.PACKAGE}


def may_import(importer: str, imported: str) -> bool:
    """Down, within one's own package, or among the modules of the ground floor."""
    above, below = FLOORS[part(importer)], FLOORS[part(imported)]
    return below < above or part(importer) == part(imported) or above == below == 0


def test_every_part_has_a_floor() -> None:
    assert {part(module) for module in FILES} - {""} == set(FLOORS)
    assert ours("rlexp") == set()


@every_module
def test_imports_go_down(module: str) -> None:
    assert [name for name in ours(module) if not may_import(module, name)] == []


@every_module
def test_imports_of_ours_exist(module: str) -> None:
    assert ours(module) <= set(FILES)


def test_there_is_no_cycle() -> None:
    graph = {module: ours(module) - {module} for module in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", [name for name in FILES if part(name) == "functional"])
def test_functional_imports_torch_and_the_ground_floor_only(module: str) -> None:
    for name in IMPORTS[module]:
        top = name.split(".")[0]
        assert (
            top == "torch" or top in sys.stdlib_module_names or (top == source.PACKAGE and FLOORS[part(name)] <= 1)
        ), name


def test_what_a_probing_process_imports_starts_fast() -> None:
    """A subprocess describes an unknown environment; it must not wait for torch."""
    reached, left = set(), {"rlexp.envs.describe"}
    while left:
        module = left.pop()
        reached.add(module)
        left |= ours(module) - reached
    assert not {name for module in reached for name in IMPORTS[module] if name.split(".")[0] == "torch"}


def test_the_loop_names_nothing() -> None:
    """No option of any group, and no class of an algorithm, an environment or a buffer."""
    options = {path.stem for path in CONF.glob("*/*.yaml")} - {"none", "standard", "local", "table", "linear"}
    classes = {
        name for module, tree in TREES.items() for name, _ in source.bases(tree)
        if part(module) in ("algorithms", "envs", "data")
    }  # fmt: skip
    libraries = {"gymnasium", "wandb", "hydra", "torch"}
    text = FILES["rlexp.experiment.loop"].read_text().split('"""', 2)[2]
    words = {word.lower() for word in re.findall(r"\w+", text)} | {w.lower() for w in re.findall(r"[a-zA-Z]+", text)}
    assert {"ppo", "cartpole", "wandb", "replay", "syncvector"} <= {name.lower() for name in options | classes}
    assert words & {name.lower() for name in options | classes | libraries} == set()


@pytest.mark.parametrize("module", [name for name in FILES if part(name) != "storage"])
def test_only_storage_writes(module: str) -> None:
    assert source.writes(TREES[module]) == []


@every_module
def test_nothing_prints(module: str) -> None:
    assert [call.lineno for name, call in source.calls(TREES[module]) if name in ("print", "pprint")] == []


@every_module
def test_nothing_is_pickled(module: str) -> None:
    tops = {name.split(".")[0] for name in IMPORTS[module]}
    assert not tops & {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    used = {name for name, _ in source.calls(TREES[module])}
    assert not used & {"torch.save", "torch.load", "np.load", "numpy.load", "yaml.load", "yaml.unsafe_load"}


@every_module
def test_random_numbers_have_owners(module: str) -> None:
    assert source.global_randomness(TREES[module]) == []
    assert "random" not in IMPORTS[module]


def test_no_class_of_ours_stands_on_more_than_one_of_ours() -> None:
    above = {name: parents for tree in TREES.values() for name, parents in source.bases(tree)}

    def depth(name: str) -> int:
        return max((1 + depth(parent) for parent in above[name] if parent in above and parent != name), default=0)

    assert {name for name in above if depth(name) > 1} == set()


# --------------------------------------------------------------------------------------------- the rules can be broken


def parse(text: str) -> ast.AST:
    return ast.parse(text)


@pytest.mark.parametrize(
    "line",
    [
        "open(p, 'w')", "open(p, mode='ab')", "open(p, 'r+')", "open(p, how)", "p.open('x')", "p.write_text(s)",
        "p.write_bytes(b)", "os.replace(a, b)", "os.remove(a)", "os.open(a, flags)", "a.rename(b)", "a.replace(b)",
        "os.open(a, os.O_RDWR | os.O_CREAT)", "from os import rename", "from shutil import rmtree",
        "a.unlink()", "shutil.rmtree(a)", "shutil.copy(a, b)", "tempfile.mkdtemp()", "torch.save(x, p)", "p.mkdir()",
        "json.dump(x, f)", "av.open(p, 'w')", "av.open(str(p), 'w', format='mp4')",
        "def f():\n    (q / 'a').write_text(s)",
    ],
)  # fmt: skip
def test_a_writing_line_is_seen(line: str) -> None:
    assert source.writes(parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "open(p)", "open(p, 'rb')", "p.open()", "p.read_text()", "s.replace('a', 'b')", "dataclasses.replace(x, a=1)",
        "json.dumps(x)", "os.open(p, os.O_RDONLY)", "sys.stdout.write(s)", "shutil.get_terminal_size()",
        "state.replace('q', rule, model)", "from pathlib import Path",
        "av.open(file, 'w', format='mp4')",
    ],
)  # fmt: skip
def test_a_reading_line_is_not(line: str) -> None:
    assert not source.writes(parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "torch.manual_seed(0)", "np.random.seed(0)", "np.random.rand(3)", "np.random.default_rng()", "random.random()",
        "torch.randn(3)", "torch.randperm(4)", "x.normal_()", "nn.init.orthogonal_(w)", "from random import choice",
        "from numpy.random import rand", "probs.multinomial(1)",
    ],
)  # fmt: skip
def test_a_draw_from_nowhere_is_seen(line: str) -> None:
    assert source.global_randomness(parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "np.random.Generator(bits)", "np.random.Philox(key=k)", "torch.Generator().manual_seed(0)", "stream.normal(3)",
        "torch.randn(3, generator=g)", "nn.init.orthogonal_(w, 1.0, generator=g)", "self.np_random.integers(2)",
    ],
)  # fmt: skip
def test_an_owned_draw_is_not(line: str) -> None:
    assert not source.global_randomness(parse(line))


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("rlexp.functional.td", "rlexp.types", True),
        ("rlexp.functional.td", "rlexp.networks.layers", False),
        ("rlexp.state", "rlexp.envs.vector", False),
        ("rlexp.algorithms.ppo", "rlexp.experience.actor", False),
        ("rlexp.experiment.run", "rlexp.experiment.loop", True),
        ("rlexp.streams", "rlexp.types", True),
        ("rlexp.types", "rlexp.functional.td", False),
    ],
)
def test_the_rule_of_floors(importer: str, imported: str, allowed: bool) -> None:
    assert may_import(importer, imported) is allowed


def test_imports_inside_functions_count() -> None:
    tree = parse("def f():\n    from rlexp.envs import vector\n    import rlexp.cli.main")
    assert set(source.imports(tree, {"rlexp.envs.vector"})) == {"rlexp.envs.vector", "rlexp.cli.main"}
