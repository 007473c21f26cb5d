"""Write the source of the package's functions into the chapter cells that show them.

A code cell with the metadata `weave: NAME`, NAME a public name of `vae`, holds that function's or
class's source. `python -m tools.weave` writes it; with `--check` it says what differs.
"""

import argparse
import ast
import importlib
import inspect
import sys
import types

from tools.chapters import Chapter, ChapterError, notebook_chapters


def source_of(name: str, package: types.ModuleType) -> str:
    """The source of a public name of `package`, which may be dotted, as in `evaluation.score`.

    Raises LookupError, which says why, for any other name.
    """
    thing: object = package
    path = package.__name__
    for part in name.split("."):
        public = getattr(thing, "__all__", None)
        listed = part in public if public is not None else not part.startswith("_")
        if not listed or not hasattr(thing, part):
            raise LookupError(f"`{part}` is no public name of `{path}`")
        thing = getattr(thing, part)
        path = f"{path}.{part}"
    try:
        return inspect.getsource(inspect.unwrap(thing)).rstrip("\n")
    except (TypeError, OSError) as error:
        raise LookupError(f"`{path}` has no source to show: {error}") from error


def defined_names(source: str) -> set[str]:
    """Names that a cell defines at its top level, by def, class or assignment."""
    names: set[str] = set()
    lines = [("pass" if line.startswith(("%", "!")) else line) for line in source.splitlines()]
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                names |= {part.id for part in ast.walk(target) if isinstance(part, ast.Name)}
    return names


def problems(chapter: Chapter, package: types.ModuleType) -> list[str]:
    """What is wrong with the woven cells of a chapter, each with its place and its cure."""
    found = []
    public = set(package.__all__)
    for cell in chapter.code_cells:
        place = f"{chapter.path}:{cell.line}"
        name = cell.metadata.get("weave")
        if name:
            try:
                if cell.source != source_of(name, package):
                    found.append(
                        f"{place}: the cell marked `weave: {name}` differs from the source of "
                        f"{package.__name__}.{name}; change the source, then run `make weave`"
                    )
            except LookupError as error:
                found.append(f"{place}: the cell is marked `weave: {name}`, but {error}")
            continue
        try:
            taken = defined_names(cell.source) & public
        except SyntaxError as error:
            found.append(f"{chapter.path}:{cell.line + (error.lineno or 1) - 1}: {error.msg}")
            continue
        for clash in sorted(taken):
            found.append(
                f"{place}: the cell defines `{clash}`, a public name of {package.__name__}; mark "
                f"the cell with `weave: {clash}` and run `make weave`, or choose another name"
            )
    return found


def weave(chapter: Chapter, package: types.ModuleType) -> list[str]:
    """Write the sources into the marked cells of a chapter; the names whose cell changed."""
    sources, changed = {}, []
    for cell in chapter.code_cells:
        name = cell.metadata.get("weave")
        if not name:
            continue
        try:
            source = source_of(name, package)
        except LookupError as error:
            raise chapter.error(cell.line, f"`weave: {name}`: {error}") from error
        if source != cell.source:
            sources[cell.line] = source
            changed.append(name)
    if sources:
        chapter.path.write_text(chapter.with_sources(sources), encoding="utf-8")
    return changed


def main() -> int:
    """Weave every chapter, or check that nothing would change."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, say what differs")
    arguments = parser.parse_args()
    package = importlib.import_module("vae")
    try:
        if arguments.check:
            found = [line for chapter in notebook_chapters() for line in problems(chapter, package)]
            print("\n".join(found) or "Woven cells: as their sources")
            return bool(found)
        for chapter in notebook_chapters():
            for name in weave(Chapter(chapter.path, chapter.root), package):
                print(f"{chapter.name}: wrote vae.{name}")
    except ChapterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
