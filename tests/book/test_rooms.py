"""The package's rooms: what each may import, and the derivation that each function names."""

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest
from tools.chapters import Chapter, Entry
from tools.labels import chapter_labels
from tools.places import BOOK, SOURCES

import vae

PACKAGE = SOURCES / "vae"

# The floor of each room; a room imports rooms of lower floors only. `evaluation` stands below
# `training`, which watches the bound while it trains.
FLOORS = {
    "checks": 0,
    "progress": 0,
    "distributions": 1,
    "hmc": 1,
    "networks": 2,
    "model": 3,
    "objectives": 4,
    "checkpoints": 4.5,
    "evaluation": 5,
    "training": 6,
    "baselines": 7,
    "dynamics": 7,
}
APART = {"datasets", "figures"}  # import no other room, and no other room imports them
DERIVED = {"distributions", "networks", "model", "objectives", "training", "evaluation"}

# What a learner who copies the package has to have; the rest is imported where it is needed.
NEEDED = {"flax", "jax", "numpy", "optax", "vae"}

REFERENCE = re.compile(r"book/(?P<path>[\w/-]+)\.md(?:,\s+equation\s+`+(?P<label>[\w-]+)`+)?")

MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The room that a file belongs to; the package's front door is `__init__`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST, top_level: bool = False) -> set[str]:
    """Dotted names of what a module imports, anywhere or at its top level alone."""
    nodes = tree.body if top_level else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_below_it(path):
    room = room_of(path)
    if room == "__init__":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not any(isinstance(n, ast.ImportFrom) and n.level for n in ast.walk(tree)), (
        "relative imports hide the room that they come from"
    )
    used = {name.split(".")[1] for name in imported(tree) if name.startswith("vae.")} - {room}
    if room in APART:
        assert used <= {"checks"}, f"{room} stands apart, but imports {used}"
        return
    assert room in FLOORS, f"give the room {room} a floor in {Path(__file__).name}"
    for other in used:
        assert other in FLOORS, f"{room} imports {other}, which stands apart or has no floor"
        assert FLOORS[other] < FLOORS[room], f"{room} imports {other}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_importing_the_package_needs_four_others_alone(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    roots = {name.split(".")[0] for name in imported(tree, top_level=True)}
    assert roots - set(sys.stdlib_module_names) <= NEEDED


def test_the_package_knows_neither_book_nor_tools():
    for path in MODULES:
        roots = {n.split(".")[0] for n in imported(ast.parse(path.read_text(encoding="utf-8")))}
        forbidden = {"IPython", "experiments", "ipykernel", "jupyter", "myst_nb", "sphinx", "tools"}
        assert not roots & forbidden, f"{path}: {roots & forbidden}"


def _derived_names() -> list[str]:
    return [
        name
        for name in vae.__all__
        if not inspect.ismodule(getattr(vae, name))
        and getattr(vae, name).__module__.split(".")[1] in DERIVED
    ]


@pytest.mark.parametrize("name", _derived_names())
def test_a_public_name_says_where_it_is_derived(name):
    text = " ".join((inspect.getdoc(getattr(vae, name)) or "").split())
    assert REFERENCE.search(text), (
        f"the docstring of vae.{name} names no derivation, such as "
        "``book/foundations/elbo.md, equation `eq-elbo` ``"
    )


def _references() -> list[tuple[str, str | None]]:
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = " ".join((ast.get_docstring(node) or "").split())
                found |= {(m["path"], m["label"]) for m in REFERENCE.finditer(text)}
    return sorted(found, key=str)


@pytest.mark.parametrize(("path", "label"), _references())
def test_a_docstrings_reference_leads_somewhere(path, label):
    chapter = Chapter(BOOK / f"{path}.md")
    assert chapter.path.exists(), f"a docstring names book/{path}.md, which does not exist"
    if label:
        labels = chapter_labels(Entry(chapter, None))
        assert label in labels, f"a docstring names `{label}`, which book/{path}.md does not have"
        assert labels[label].kind == "equation"


def test_the_reference_pattern_reads_what_docstrings_write():
    text = "Derived in ``book/foundations/elbo.md, equation `eq-elbo` ``, and book/a-b/c.md."
    found = [(m["path"], m["label"]) for m in REFERENCE.finditer(text)]
    assert found == [("foundations/elbo", "eq-elbo"), ("a-b/c", None)]
