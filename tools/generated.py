"""What pages leave to be generated: a line `% generated: NAME` becomes Markdown.

The colophon's facts come from the notebooks that were executed for the pages at hand, so they are
those of the outputs that a reader sees.
"""

import re
from collections.abc import Callable

from tools import equations, executions, repository
from tools.chapters import contents

_MARK = re.compile(r"^% generated: (?P<name>[\w-]+)$", re.MULTILINE)


def fill(text: str, page: str) -> str:
    """`text` with every mark replaced. Raises LookupError for a name that there is none of."""

    def generate(match: re.Match) -> str:
        if match["name"] not in GENERATORS:
            raise LookupError(f"{page}: nothing generates `{match['name']}`")
        return GENERATORS[match["name"]]()

    return _MARK.sub(generate, text)


def _executed() -> list[tuple[str, dict]]:
    """The name of each notebook chapter, with the facts of its execution."""
    found = []
    for entry in contents():
        if entry.chapter.is_notebook:
            notebook = executions.kept(entry.chapter)
            if notebook is None:
                raise LookupError(f"{entry.chapter.name} has not been executed as it stands")
            found.append((entry.chapter.name, notebook.metadata["execution"]))
    return found


def seconds() -> str:
    """A table: chapter, cells, seconds, memory, claims skipped; and the sums."""
    rows = [
        "| chapter | code cells | seconds | MiB at most | claims skipped |",
        "|---|--:|--:|--:|--:|",
    ]
    cells = duration = skipped = 0
    for name, facts in _executed():
        claims = len(facts["skipped"])
        rows.append(
            f"| {{doc}}`/{name}` | {facts['cells']} | {facts['seconds']:.0f} "
            f"| {facts['peak_mib']:.0f} | {claims or 'none'} |"
        )
        cells += facts["cells"]
        duration += facts["seconds"]
        skipped += claims
    rows.append(f"| together | {cells} | {duration:.0f} | | {skipped or 'none'} |")
    return "\n".join(rows)


def environment() -> str:
    """A table of the machine and the versions that the chapters ran on."""
    kinds: dict[tuple, list[str]] = {}
    for name, facts in _executed():
        kinds.setdefault(tuple(facts["environment"].items()), []).append(name)
    tables = []
    for pairs, names in kinds.items():
        rows = "\n".join(f"| {what} | {value} |" for what, value in pairs)
        head = f"| {'all chapters' if len(kinds) == 1 else ', '.join(names)} | |\n|---|---|\n"
        tables.append(head + rows)
    return "\n\n".join(tables)


def commit() -> str:
    """The commit that the pages were made from, and whether files differed from it."""
    sha = repository.commit()
    if sha is None:
        return "These pages were made outside of a git repository, so they can name no commit."
    changed = len(repository.uncommitted())
    clean = f"with {changed} uncommitted changes" if changed else "with nothing uncommitted"
    return f"These pages were made from commit `{sha}`, {clean}."


GENERATORS: dict[str, Callable[[], str]] = {
    "commit": commit,
    "environment": environment,
    "equations": equations.table,
    "seconds": seconds,
}
