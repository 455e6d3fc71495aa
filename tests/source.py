"""What a source file does, read from its syntax tree: imports, calls that write, global random numbers, bases."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "rlexp"


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an expression; a part that is no name becomes `?`."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """Every module imported anywhere in the file, inside functions too; of ours the most precise known name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known else str(node.module)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


# ------------------------------------------------------------------------------------------------------------- writing

_OS = {
    "rename", "renames", "replace", "remove", "unlink", "rmdir", "removedirs", "mkdir", "makedirs", "truncate",
    "ftruncate", "write", "pwrite", "link", "symlink", "chmod",
}  # fmt: skip
_METHODS = {
    "write_text", "write_bytes", "unlink", "rmdir", "mkdir", "touch", "symlink_to", "hardlink_to", "tofile",
    "rename",
}  # fmt: skip
_READING = {"shutil.disk_usage", "shutil.which", "shutil.get_terminal_size"}
_SAVERS = {"json.dump", "np.save", "np.savez", "np.savetxt", "numpy.save", "torch.save", "safetensors.torch.save_file"}


def writes(tree: ast.AST) -> list[str]:
    """Calls that open a file for writing, rename or remove one."""
    found = [f"{name}, line {call.lineno}" for name, call in calls(tree) if _writes(name, call)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil", "tempfile"):
            found.append(f"from {node.module}, line {node.lineno}: such a call would not be seen")
    return found


def _writes(name: str, call: ast.Call) -> bool:
    owner, _, method = name.rpartition(".")
    if owner == "os":
        return method in _OS or (method == "open" and dotted(call.args[1]) != "os.O_RDONLY")
    if owner in ("shutil", "tempfile"):
        return name not in _READING
    if name == "av.open" and isinstance(call.args[0], ast.Name) and any(k.arg == "format" for k in call.keywords):
        return False  # a video's container in a file that is open already: its format is named, for it has no name
    if method == "open":
        return _mode(call, position=0 if owner else 1)
    if method == "replace":  # of a path: of a text it takes two, of a dataclass names
        return len(call.args) == 1 and not call.keywords
    return name in _SAVERS or bool(owner and method in _METHODS)


def _mode(call: ast.Call, position: int) -> bool:
    """Whether the mode of an `open` writes; a mode that is not a literal counts as writing."""
    given = [k.value for k in call.keywords if k.arg == "mode"] or call.args[position : position + 1]
    if not given:
        return False
    return not isinstance(given[0], ast.Constant) or bool(set(str(given[0].value)) & set("wax+"))


# ------------------------------------------------------------------------------------------------------ random numbers

_FUNCTIONS = {
    "rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson", "rand_like",
    "randn_like", "randint_like",
}  # fmt: skip
_IN_PLACE = {
    "normal_", "uniform_", "random_", "bernoulli_", "exponential_", "geometric_", "cauchy_", "log_normal_",
    "orthogonal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_", "trunc_normal_",
    "multinomial",
}  # fmt: skip
_SEEDING = {"torch.manual_seed", "torch.seed", "torch.set_rng_state", "torch.cuda.manual_seed"}
_OWNED = {"Generator", "Philox", "PCG64", "SeedSequence", "BitGenerator"}


def global_randomness(tree: ast.AST) -> list[str]:
    """Draws from a generator that nobody owns, and seedings of one."""
    found = [f"{name}, line {call.lineno}" for name, call in calls(tree) if _draws(name, call)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("random", "numpy.random"):
            found.append(f"from {node.module}, line {node.lineno}")
    return found


def _draws(name: str, call: ast.Call) -> bool:
    owner, _, method = name.rpartition(".")
    if owner in ("np.random", "numpy.random"):
        return method not in _OWNED and not (method == "default_rng" and call.args)
    if name in _SEEDING or owner == "random":
        return True
    if any(keyword.arg == "generator" for keyword in call.keywords):
        return False
    return (owner == "torch" and method in _FUNCTIONS) or bool(owner and method in _IN_PLACE)


# ------------------------------------------------------------------------------------------------------------- classes


def bases(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Each class and the last names of its bases, without their type parameters."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            plain = (base.value if isinstance(base, ast.Subscript) else base for base in node.bases)
            yield node.name, [dotted(base).rpartition(".")[2] for base in plain]
