"""The works in `references.bib`, as plain Markdown for the notebooks."""

from functools import cache
from pathlib import Path

from pybtex.database import Entry, parse_file

from tools.places import REFERENCES


@cache
def references(path: Path = REFERENCES) -> dict[str, Entry]:
    """The entries by key."""
    return dict(parse_file(str(path), bib_format="bibtex").entries)


def _clean(text: str) -> str:
    return text.replace("{", "").replace("}", "").replace("--", "–")


def authors(entry: Entry) -> str:
    """Family names: one, two, or the first and *et al.*"""
    people = entry.persons.get("author") or entry.persons.get("editor") or []
    names = [_clean(" ".join(person.prelast_names + person.last_names)) for person in people]
    if not names:
        return _clean(entry.fields.get("title", ""))
    if len(names) <= 2:
        return " and ".join(names)
    return f"{names[0]} *et al.*"


def link(entry: Entry) -> str | None:
    """Where the work can be read."""
    fields = entry.fields
    if "url" in fields:
        return fields["url"]
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    if "eprint" in fields:
        return f"https://arxiv.org/abs/{fields['eprint']}"
    return None


def cite(key: str, textual: bool = False) -> str:
    """`Kingma and Welling, 2014`, or `Kingma and Welling (2014)`, linked where there is a link.

    Raises `KeyError` for a key that the bibliography does not hold.
    """
    entry = references()[key]
    year = entry.fields.get("year", "n.d.")
    text = f"{authors(entry)} ({year})" if textual else f"{authors(entry)}, {year}"
    return f"[{text}]({link(entry)})" if link(entry) else text


def full(key: str) -> str:
    """A line for a list of sources."""
    entry = references()[key]
    fields = entry.fields
    where = fields.get("journal") or fields.get("booktitle") or fields.get("publisher")
    parts = [f"{cite(key, textual=True)}.", f"*{_clean(fields.get('title', ''))}*."]
    if where:
        parts.append(f"{_clean(where)}.")
    return " ".join(parts)
