"""Executed chapters: under which key they are kept, and how they reach Jupyter Book's cache.

A chapter's outputs are kept in `_build/executed/` only if every cell of it ran and passed, under a
key made of all that they depend on. Jupyter Book's own cache asks for the code cells alone, so it
is filled anew, from the outputs whose key still holds, before each page build.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from tools.chapters import Chapter
from tools.notebooks import SET_UP, notebook_path, write
from tools.places import CACHE, EXECUTED, EXPERIMENTS, LOCK, REPORT, ROOT, SOURCES


def _files(*folders: Path) -> list[Path]:
    """What a chapter may import or read: sources and recorded results."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            parts = path.relative_to(folder).parts
            if path.is_file() and "__pycache__" not in parts and "runs" not in parts:
                found.append(path)
    return sorted(path for path in found if ".egg-info" not in str(path))


def _digest(pieces: list[bytes | str]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        data = piece.encode() if isinstance(piece, str) else piece
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def code_key(chapter: Chapter, root: Path = ROOT) -> str:
    """A digest of the code cells, the package, the experiments, the lock and Python."""
    sources = root / SOURCES.relative_to(ROOT)
    experiments = root / EXPERIMENTS.relative_to(ROOT)
    pieces: list[bytes | str] = [sys.version, sys.platform]
    pieces += [cell.source for cell in chapter.code_cells]
    for path in [*_files(sources / "vae", experiments), root / LOCK.relative_to(ROOT)]:
        pieces += [path.relative_to(root).as_posix(), path.read_bytes()]
    return _digest(pieces)


def data_key() -> str:
    """A digest of the names, sizes and times of the files that loaders may find."""
    import pooch

    folders = [Path(pooch.os_cache("vae"))]
    if os.environ.get("VAE_DATA_DIR"):
        folders.append(Path(os.environ["VAE_DATA_DIR"]))
    pieces: list[bytes | str] = []
    for place, folder in enumerate(folders):
        for path in _files(folder):
            state = path.stat()
            name = path.relative_to(folder).as_posix()
            pieces.append(f"{place} {name} {state.st_size} {state.st_mtime_ns}")
    return _digest(pieces)


PACKAGES = ("jax", "flax", "optax", "numpy", "scipy", "scikit-learn", "matplotlib")


def environment() -> dict[str, str]:
    """What a chapter runs on: machine, Python and the packages that chapters import."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {_processor()}"
    return {"machine": machine, "python": platform.python_version(), **versions}


def _processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unnamed processor"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unnamed processor"


def executed_path(chapter: Chapter, folder: Path = EXECUTED) -> Path:
    """Where the executed notebook of a chapter is kept."""
    return notebook_path(chapter, folder)


def forget(chapter: Chapter, folder: Path = EXECUTED) -> None:
    """Remove what was kept of a chapter: it is about to run again."""
    executed_path(chapter, folder).unlink(missing_ok=True)


def keep(
    chapter: Chapter, notebook: NotebookNode, facts: dict[str, Any], folder: Path = EXECUTED
) -> None:
    """Keep a chapter's notebook, with outputs, all of whose cells passed under `facts`' key."""
    notebook.metadata["execution"] = facts
    write(notebook, executed_path(chapter, folder))


def kept(chapter: Chapter, folder: Path = EXECUTED, root: Path = ROOT) -> NotebookNode | None:
    """The chapter's executed notebook, or None if there is none that still holds."""
    path = executed_path(chapter, folder)
    if not path.exists():
        return None
    notebook = nbformat.read(path, as_version=4)
    facts = notebook.metadata.get("execution", {})
    holds = facts.get("code") == code_key(chapter, root) and facts.get("data") == data_key()
    return notebook if holds else None


def chapter_code(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells that a notebook has from its chapter: all but the set-up."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and not cell.metadata.get(SET_UP)
    ]


def with_outputs(notebook: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """`notebook` with the outputs of `executed`, which has the same code cells."""
    old, new = chapter_code(executed), chapter_code(notebook)
    if [cell.source for cell in old] != [cell.source for cell in new]:
        raise ValueError("the executed notebook has other code cells than its chapter")
    for count, (cell, done) in enumerate(zip(new, old, strict=True), start=1):
        cell.execution_count = count
        cell.outputs = json.loads(json.dumps(done.outputs), object_hook=nbformat.from_dict)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    return notebook


def fill_cache(chapters: list[Chapter], cache: Path = CACHE, folder: Path = EXECUTED) -> None:
    """Make Jupyter Book's cache anew from the kept outputs of `chapters`.

    Raises `LookupError` if one of them has no outputs that still hold.
    """
    # Slow to import, and what else is here must be quick: the tests of every chapter ask it.
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn
    from myst_nb.core.read import read_myst_markdown_notebook

    shutil.rmtree(cache, ignore_errors=True)
    store = get_cache(str(cache))
    for chapter in chapters:
        executed = kept(chapter, folder)
        if executed is None:
            raise LookupError(f"{chapter.name} has not been executed as it stands")
        page = read_myst_markdown_notebook(chapter.text, path=chapter.path)
        bundle = CacheBundleIn(
            with_outputs(page, executed),
            str(chapter.path),
            data={"execution_seconds": executed.metadata["execution"]["seconds"]},
        )
        store.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def write_report(chapters: list[Chapter], folder: Path = EXECUTED, path: Path = REPORT) -> None:
    """Write seconds and peak memory of each executed chapter, for the colophon."""
    rows = {}
    for chapter in chapters:
        file = executed_path(chapter, folder)
        if file.exists():
            rows[chapter.name] = dict(nbformat.read(file, as_version=4).metadata["execution"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2, sort_keys=True) + "\n", encoding="utf-8")
