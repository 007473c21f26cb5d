"""The package needs JAX, Flax, Optax and NumPy alone, and can be copied anywhere."""

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vae

SOURCE = Path(vae.__file__).parent
ALONE = """
import sys
sys.path.insert(0, sys.argv[1])
import importlib.abc
import importlib.metadata as metadata
import re

def closure(names):
    # The distributions that these need, and what those need, without their extras.
    found, todo = set(), list(names)
    while todo:
        name = re.sub("[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        todo += [re.match("[A-Za-z0-9._-]+", r)[0] for r in requires if "extra ==" not in r]
    return found

allowed = closure(["jax", "jaxlib", "flax", "optax", "numpy"])
normal = lambda name: re.sub("[-_.]+", "-", name).lower()
blocked = {
    module
    for module, owners in metadata.packages_distributions().items()
    if not any(normal(owner) in allowed for owner in owners)
} - {"vae"} | {"experiments", "matplotlib", "pooch", "requests", "sklearn", "IPython", "tqdm"}

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Block())
for name in ("matplotlib", "pooch", "sklearn", "experiments"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} was not blocked, so this proves nothing")

import pathlib
import jax, numpy as np, optax
from flax import nnx
import vae
assert pathlib.Path(vae.__file__).parent == pathlib.Path(sys.argv[1]) / "vae", vae.__file__
assert all(hasattr(vae, name) for name in vae.__all__)

key, rngs = jax.random.key(0), nnx.Rngs(0)
images = np.random.default_rng(0).choice([20, 230], size=(60, 1)).repeat(6, axis=1).astype(np.uint8)
model = vae.VAE(vae.MLPEncoder(6, 8, 2, rngs=rngs), vae.MLPDecoder(2, 8, 6, rngs=rngs))
history = vae.fit(model, images, key=key, epochs=40, batch_size=10, optimizer=optax.adam(1e-2),
                  validation=images, validate_every=40, checkpoint=sys.argv[1] + "/run.npz")
x = vae.evaluation.as_intensities(jax.numpy.asarray(images))
vae.log_marginal_likelihood(model, x, key, 10)
assert model.generate(key, 3).shape == model.reconstruct(x[:3], key).shape == (3, 6)
vae.figures.mosaic(images, 10, (2, 3))
for needs, call in {"pooch": vae.datasets.mnist, "matplotlib": vae.figures.use_style}.items():
    try:
        call()
    except ModuleNotFoundError as error:
        assert error.name == needs, error
    else:
        raise SystemExit(f"{needs} was not needed")
print("gained", history.bound[-1] - history.bound[0])
"""


def test_an_installation_has_every_folder_of_the_package():
    root = SOURCE.parents[1]
    if not (root / "pyproject.toml").exists():
        pytest.skip("the package stands without its pyproject.toml here, as when it is installed")
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(SOURCE.parent) for path in SOURCE.rglob("__init__.py")}
    assert {".".join(folder.parts) for folder in folders} == set(listed) - {"experiments"}


def test_a_copy_in_an_empty_folder_trains_with_jax_flax_optax_and_numpy_alone(
    tmp_path, monkeypatch
):
    shutil.copytree(SOURCE, tmp_path / "vae", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.delenv("VAE_DATA_DIR", raising=False)
    run = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "epoch 40/40" in run.stdout
    # All six pixels are one bit: from log(1/2) each, -4.2 nats, to some -2.5 (grey levels).
    assert float(run.stdout.split("gained")[1]) > 0.5


def imports(path):
    """(the top-level name of a module, is it imported with the file) for each import in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
            for name in names:
                yield name.partition(".")[0], node not in inside


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(SOURCE)) for p in FILES])
def test_a_file_imports_what_the_package_may_need_and_nothing_of_the_book(path):
    always = {"vae", "jax", "flax", "optax", "numpy", *sys.stdlib_module_names}
    late = {
        "PIL",
        "gymnasium",
        "imageio_ffmpeg",
        "matplotlib",
        "pooch",
        "pygame",
        "scipy",
        "sklearn",
    }
    for name, with_the_file in imports(path):
        assert name in always or (name in late and not with_the_file), f"{path.name}: {name}"


FLOORS = ["checks", "distributions", "networks", "model", "objectives", "evaluation", "training"]


def test_a_room_imports_only_rooms_below_it():
    for floor, name in enumerate(FLOORS):
        files = [*SOURCE.glob(f"{name}.py"), *SOURCE.glob(f"{name}/*.py")]
        assert files, f"there is no room {name}"
        for node in (n for f in files for n in ast.walk(ast.parse(f.read_text(encoding="utf-8")))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vae"):
                rooms = (
                    [node.module.split(".")[1]]
                    if "." in node.module
                    else [alias.name for alias in node.names]
                )
                above = set(rooms) & set(FLOORS[floor + 1 :])
                assert not above, f"{name} imports {above}"


def test_the_public_face_is_there():
    for name in vae.__all__:
        assert hasattr(vae, name), name
    assert sorted(vae.__all__) == sorted(set(vae.__all__))
