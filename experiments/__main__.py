"""`make reproduce`: what the long runs are, what they cost, what is recorded; or run them.

python -m experiments                 list them
python -m experiments NAME [NAME...]  run these in full; a killed run goes on where it stopped
python -m experiments all             run all of them
"""

import argparse
import ast
import subprocess
import sys

from experiments import runs

SHARED = {
    "__init__", "__main__", "ledger", "paper", "precision", "published", "recipes", "runs", "seeds",
}  # fmt: skip


def experiments() -> dict[str, tuple[str, str]]:
    """Name of each experiment, with the first line of what it says of itself and its cost."""
    found = {}
    for path in sorted(runs.HERE.glob("*.py")):
        if path.stem in SHARED:
            continue
        tree = ast.parse(path.read_text())
        cost = next(
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and node.targets[0].id == "COST"
        )
        found[path.stem] = ast.get_docstring(tree).splitlines()[0], cost
    return found


def main() -> None:
    """List the experiments, or run those that the command line names."""
    parser = argparse.ArgumentParser(description="The long runs of the book.")
    parser.add_argument("names", nargs="*", help="experiments to run in full, or 'all'")
    args = parser.parse_args()
    known = experiments()
    names = list(known) if args.names == ["all"] else args.names
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"no experiment {', '.join(unknown)}; there are: {', '.join(known)}")
    for name in names:
        subprocess.run([sys.executable, "-m", f"experiments.{name}", "--full"], check=True)
    if names:
        return
    for name, (what, cost) in known.items():
        recorded = sorted(path.name for path in runs.RESULTS.glob(f"{name}*.npz"))
        print(f"{name}: {what}\n    cost: {cost}")
        print(
            f"    recorded: {len(recorded)} files" + (f" ({recorded[0]}, ...)" if recorded else "")
        )
        print(f"    run it: make reproduce RUN={name}")
    print("\nWhat they found: python -m experiments.ledger")
    print("A run that is recorded is not run again; to redo it, move its files out of results/.")


if __name__ == "__main__":
    main()
