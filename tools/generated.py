"""What pages leave to be generated: a line `% generated: NAME` becomes Markdown.

The colophon's facts come from the notebooks that were executed for the pages at hand, so they are
those of the outputs that a reader sees.
"""

import re
from collections.abc import Callable

from experiments import ledger as recorded

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


# The ledger's parts: what an id starts with, and what its part is called.
LEDGER_PARTS = {
    "mnist.": "MNIST, the bound along training",
    "frey.": "Frey Face, the bound along training",
    "fig3.": "Figure 3, the marginal likelihood",
    "likelihood.": "How likely the data is",
    "vae.": "Importance-weighted autoencoders",
    "iwae.": "Importance-weighted autoencoders",
    "circles.": "Circles",
    "pendulum.": "Pendulum",
}


_COMPARED = ("theirs", "difference", "verdict")  # columns of a part where somebody else has numbers


def ledger() -> str:
    """Two tables for each part of the ledger: the numbers, and how to redo them."""
    rows = sorted(recorded.read(), key=_natural)
    parts: dict[str, list[dict]] = {}
    for row in rows:
        title = next((t for start, t in LEDGER_PARTS.items() if row["id"].startswith(start)), None)
        if title is None:
            raise LookupError(f"the ledger's row {row['id']} belongs to no part of its page")
        parts.setdefault(title, []).append(row)
    titles = [title for title in dict.fromkeys(LEDGER_PARTS.values()) if title in parts]
    return "\n\n".join([_verdicts(rows), *(_ledger_part(t, parts[t]) for t in titles)])


def _natural(row: dict) -> list:
    """The parts of a row's id, numbers as numbers: nz3 before nz20."""
    parts = re.split(r"(\d+)", row["id"])
    return [int(part) if part.isdigit() else part for part in parts]


def _verdicts(rows: list[dict]) -> str:
    """How many published numbers were matched, bettered, or not reached."""
    given = [verdict for row in rows if (verdict := recorded.verdict(row))]
    counts = ", ".join(f"{given.count(word)} {word}" for word in ("matched", "better", "short"))
    return (
        f"The ledger has {len(rows)} numbers. For {len(given)} of them somebody published one to "
        f"compare with: {counts}."
    )


def _ledger_part(title: str, rows: list[dict]) -> str:
    compared = any(row["theirs"] for row in rows)
    columns = {"what": "---", "theirs": "--:", "ours": "--:", "seeds: least to greatest": "---"}
    columns |= {"difference": "--:", "verdict": "---", "examples": "--:", "seconds": "--:"}
    numbers, reasons, commands = [], [], {}
    for row in rows:
        word = recorded.verdict(row)
        number = {
            "what": f"`{row['id']}`<br>{_plain(row['what'])}, {row['unit']}",
            "theirs": row["theirs"],
            "ours": row["ours"],
            "seeds: least to greatest": row["seeds"]
            + (f": {row['low']} to {row['high']}" if row["low"] != row["high"] else ""),
            "difference": f"{float(row['ours']) - float(row['theirs']):+.2f}" if word else "",
            "verdict": f"{word} (±{float(row['tolerance']):g})" if word else "",
            "examples": f"{int(row['examples']):,}",
            "seconds": f"{int(row['seconds']):,}",
        }
        numbers.append(number)
        if row["why"]:
            reasons.append(f"- `{row['id']}` is {word or 'alone'}: {_plain(row['why'])}")
        how = (f"`{row['command']}`", row["machine"], f"`{row['commit']}`", _plain(row["note"]))
        commands.setdefault((*how, _plain(row["source"] if word else "")), []).append(row["id"])
    shown = [name for name in columns if compared or name not in _COMPARED]
    how = "| redo | machine | commit | note | theirs from | rows |\n|---|---|---|---|---|--:|"
    return "\n".join(
        [
            f"## {title}\n",
            f"| {' | '.join(shown)} |\n|{'|'.join(columns[name] for name in shown)}|",
            *(f"| {' | '.join(number[name] for name in shown)} |" for number in numbers),
            "",
            *reasons,
            "",
            how,
            *(f"| {' | '.join(how)} | {len(ids)} |" for how, ids in commands.items()),
        ]
    )


def _plain(text: str) -> str:
    """Text that Markdown shows as it is written."""
    return re.sub(r"([_*^|<>\\])", r"\\\1", text)


GENERATORS: dict[str, Callable[[], str]] = {
    "commit": commit,
    "environment": environment,
    "equations": equations.table,
    "ledger": ledger,
    "seconds": seconds,
}
