"""The ledger: every number of ours that is compared with another's, or that costs long to redo.

python -m experiments.ledger                  what it holds
python -m experiments.ledger --check ID       recompute a row from the recorded weights

A row with a published number beside ours also says which way is better, by how much ours may differ
and still count as the same, and, where ours falls short, why.
"""

import argparse
import csv
import importlib
import os
from pathlib import Path

PATH = Path(__file__).parent / "results" / "ledger.csv"
COLUMNS = (
    "id", "what", "unit", "theirs", "source", "ours", "low", "high", "seeds", "examples",
    "seconds", "machine", "commit", "command", "note", "better", "tolerance", "why",
)  # fmt: skip
OPTIONAL = {"better": "", "tolerance": "", "why": ""}  # for rows with nobody else's number
RECOMPUTED = 0.05  # nats by which a recomputed bound may differ: other machines round otherwise


def read() -> list[dict]:
    """The rows, as dictionaries of strings, in the order of their ids."""
    if not PATH.exists():
        return []
    with open(PATH, newline="") as file:
        return list(csv.DictReader(file))


def row(id: str) -> dict:
    """The row of an id. Raises KeyError, naming the ids there are, for another."""
    rows = {row["id"]: row for row in read()}
    if id not in rows:
        raise KeyError(f"the ledger has no row {id!r}; it has {', '.join(rows) or 'none'}")
    return rows[id]


def add(rows: list[dict]) -> None:
    """Put rows into the ledger, in place of rows of the same id. The file is replaced whole."""
    rows = [OPTIONAL | row for row in rows]
    for new in rows:
        if set(new) != set(COLUMNS):
            raise ValueError(f"a row needs exactly the columns {COLUMNS}, got {tuple(new)}")
        verdict(new)
    merged = {row["id"]: row for row in read()} | {row["id"]: row for row in rows}
    PATH.parent.mkdir(parents=True, exist_ok=True)
    partial = PATH.with_suffix(".partial")
    with open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(merged[id] for id in sorted(merged))
    os.replace(partial, PATH)


def verdict(row: dict) -> str:
    """matched, better or short; nothing where nobody published a number.

    Raises ValueError for a row that has another's number, but not what it takes to judge ours, or
    that falls short without saying why.
    """
    if str(row["theirs"]) == "":
        return ""
    if row["better"] not in ("higher", "lower") or str(row["tolerance"]) == "":
        raise ValueError(f"{row['id']} needs a tolerance, and better: 'higher' or 'lower'")
    sign = 1 if row["better"] == "higher" else -1
    ahead = sign * (float(row["ours"]) - float(row["theirs"]))
    tolerance = float(row["tolerance"])
    if ahead < -tolerance and not row["why"]:
        raise ValueError(f"{row['id']} falls short by {-ahead:.2f}, and does not say why")
    return "short" if ahead < -tolerance else "better" if ahead > tolerance else "matched"


def recompute(id: str) -> tuple[float, float]:
    """(the value recorded, the value recomputed from the recorded weights) of a row."""
    recorded = row(id)
    module = importlib.import_module(recorded["command"].split()[2])
    return float(recorded["ours"]), module.check(recorded)


def main() -> None:
    """Print the ledger, or check one of its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", metavar="ID", help="recompute this row; fails where it differs")
    args = parser.parse_args()
    if args.check:
        recorded, again = recompute(args.check)
        print(f"{args.check}: recorded {recorded:.2f}, recomputed {again:.2f}")
        if abs(recorded - again) > RECOMPUTED:
            raise SystemExit(f"they differ by more than {RECOMPUTED}")
        return
    for entry in read():
        theirs = f"{verdict(entry)}, theirs {entry['theirs']}, " if entry["theirs"] else ""
        print(
            f"{entry['id']}: {theirs}ours {entry['ours']} {entry['unit']} "
            f"({entry['low']} to {entry['high']} over {entry['seeds']} seeds)"
        )


if __name__ == "__main__":
    main()
