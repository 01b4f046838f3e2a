"""The order of the package: imports run one way, without circles, and files stay short."""

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.once("torch")

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "keras_ssm"
LONGEST = 350  # lines

# From the ground up. Files and folders of one line do not know each other.
STRATA = (
    ("version", "attributes", "checks", "keras_internals", "machine", "scratch", "types"),
    ("atomic_file", "initializers", "ops"),
    ("atomic_directory", "layers"),
    ("presets", "optimizers"),
    ("forecasting", "signals"),
    ("models",),
    ("tokenizers",),
    ("callbacks", "convert", "datasets", "export", "hub", "plotting"),
    ("training",),
    ("recipes", "sklearn"),
    ("gallery",),
    ("benchmark", "demo", "experiments", "web"),
    ("cli",),
    ("__main__",),
)

# This module takes its names from the running backend, whose files use functions that import it.
CHOICE = "keras_ssm.ops.backend"

LEVEL = {name: level for level, names in enumerate(STRATA) for name in names}


def modules(root=ROOT):
    """Dict of the name of each module of the package to its file."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name, path, known):
    """The modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = name.split(".") + ["-"] * (path.name == "__init__.py")
                base = ".".join([*here[: -node.level], *([base] if base else [])])
            inner = {f"{base}.{alias.name}" for alias in node.names}
            found |= {part if part in known else base for part in inner}
    return {target for target in found if target.split(".")[0] == PACKAGE and target != name}


def graph(root=ROOT):
    known = modules(root)
    return {name: imports(name, path, known) for name, path in known.items()}


def stratum(name):
    """The file or folder right below the package that a module belongs to."""
    return name.split(".")[1]


def upward(edges):
    """Pairs of modules of which the first imports what stands above it, or beside it."""
    return [
        f"{name} -> {target}"
        for name, targets in sorted(edges.items())
        for target in sorted(targets)
        if name != PACKAGE
        and (
            target == PACKAGE
            or (stratum(name) != stratum(target) and LEVEL[stratum(name)] <= LEVEL[stratum(target)])
        )
    ]


def circle(edges):
    """A list of modules each of which imports the next, the last one the first, or `None`."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        path.append(name)
        for target in sorted(edges.get(name, ())):
            found = visit(target)
            if found:
                return found
        done.add(path.pop())
        return None

    return next(filter(None, map(visit, sorted(edges))), None)


def test_every_part_of_the_package_has_its_place():
    parts = {stratum(name) for name in modules() if name != PACKAGE}
    assert parts <= set(LEVEL), sorted(parts - set(LEVEL))


def test_imports_run_downwards():
    assert upward(graph()) == []


def test_imports_have_no_circle():
    assert circle({**graph(), CHOICE: ()}) is None


def test_files_can_be_read_in_one_go():
    lines = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()
    }
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def test_a_wrong_import_is_found(tmp_path):
    files = {
        "__init__": "from keras_ssm import layers",
        "checks": "",
        "layers/__init__": "from keras_ssm.layers.one import One",
        "layers/one": "def late():\n    from keras_ssm.models import Model",
        "layers/two": "from .three import a",
        "layers/three": "import keras_ssm.layers.two",
        "models/__init__": "from keras_ssm import checks, layers\nfrom ..layers import one",
    }
    for name, text in files.items():
        path = tmp_path / PACKAGE / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    edges = graph(tmp_path)
    assert edges["keras_ssm.models"] == {
        f"keras_ssm.{name}" for name in ("checks", "layers", "layers.one")
    }
    assert upward(edges) == ["keras_ssm.layers.one -> keras_ssm.models"]
    layers, one, models = (f"keras_ssm.{name}" for name in ("layers", "layers.one", "models"))
    assert circle(edges) == [layers, one, models, layers]
    assert circle({k: v for k, v in edges.items() if k != models}) == [
        f"keras_ssm.layers.{name}" for name in ("three", "two", "three")
    ]
