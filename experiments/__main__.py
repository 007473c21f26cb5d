"""`make reproduce`: what the long runs are, what they cost, what is recorded; or run them.

python -m experiments                 list them
python -m experiments NAME [NAME...]  run these in full; a killed run goes on where it stopped
python -m experiments all             run all of them
"""

import argparse
import importlib
import pkgutil
import subprocess
import sys

import experiments
from experiments import runs


def found() -> dict[str, runs.Experiment]:
    """The experiments by the names of their modules."""
    names = sorted(module.name for module in pkgutil.iter_modules(experiments.__path__))
    modules = {
        name: importlib.import_module(f"experiments.{name}") for name in names if name[0] != "_"
    }
    return {
        name: module.EXPERIMENT for name, module in modules.items() if hasattr(module, "EXPERIMENT")
    }


def main() -> None:
    """List the experiments, or run those that the command line names."""
    parser = argparse.ArgumentParser(description="The long runs of the book.")
    parser.add_argument("names", nargs="*", help="experiments to run in full, or 'all'")
    args = parser.parse_args()
    known = found()
    names = list(known) if args.names == ["all"] else args.names
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"no experiment {', '.join(unknown)}; there are: {', '.join(known)}")
    for name in names:
        subprocess.run([sys.executable, "-m", f"experiments.{name}", "--full"], check=True)
    if names:
        return
    for name, experiment in known.items():
        missing = experiment.missing()
        print(f"{name}: {experiment.about.splitlines()[0]}")
        print(f"    cost: {experiment.cost}")
        total = len(tuple(experiment.names))
        print(f"    recorded: {total - len(missing)} of {total} runs")
        print(f"    run what is not recorded: make reproduce RUNS={name}")
    print("\nWhat they found: python -m experiments.ledger")
    print("The runs of one, by name: python -m experiments.NAME --list; one of them: --full --only")
    print("A run that is recorded is not run again; to redo it, move its file out of results/.")


if __name__ == "__main__":
    main()
