"""What the tests of the chapters add to nbval's.

nbval runs each cell of the notebooks in `_build/notebooks/` as a test. Here a cell that writes to
stderr fails, a claim that a cell reports as `SKIPPED: reason` counts as skipped, and the outputs
of a chapter all of whose cells passed are kept for the pages (tools/executions.py).
"""

import os
import time
from dataclasses import dataclass, field

import pytest

try:
    from nbval.plugin import IPyNbCell, IPyNbFile
except ImportError:  # the unit tests also run where the book's tools are not installed

    class IPyNbCell:
        """No cell is an instance of this."""

    IPyNbFile = IPyNbCell

SKIPPED = "SKIPPED: "
LINE = "chapter"  # the key under which a worker hands the main process a line to print


@dataclass
class Run:
    """What is known of a chapter while it runs."""

    code: str  # the key at the start; the outputs are kept only if it still holds at the end
    started: float
    passed: set[int] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)
    peak: int = 0  # bytes


def pytest_configure(config):
    """Chapters run on the CPU, as on the reader's machine."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")


def _chapter(file):
    from tools.chapters import chapters_by_name
    from tools.places import NOTEBOOKS

    if not file.path.is_relative_to(NOTEBOOKS):
        return None
    name = file.path.relative_to(NOTEBOOKS).with_suffix("").as_posix()
    return chapters_by_name([name])[0]


def peak_memory(pid: int) -> int:
    """The largest resident memory of a process so far, in bytes (now, where only that is known)."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except FileNotFoundError:
        pass
    import psutil

    return psutil.Process(pid).memory_info().rss


def stream(cell, name: str) -> str:
    """What a cell wrote to stdout or stderr."""
    outputs = cell.test_outputs or []
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Note when a chapter starts, and forget what was kept of it."""
    if isinstance(item, IPyNbCell) and item.cell_num == 0:
        item.parent.run = None
        chapter = _chapter(item.parent)
        if chapter:
            from tools.executions import code_key, forget

            forget(chapter)
            item.parent.run = Run(code=code_key(chapter), started=time.monotonic())
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A cell that writes to stderr, a warning for one, fails."""
    result = yield
    if isinstance(item, IPyNbCell):
        errors = stream(item, "stderr")
        if errors:
            item.raise_cell_error("The cell wrote to stderr", errors)
        run = getattr(item.parent, "run", None)
        if run:
            run.peak = max(run.peak, peak_memory(item.parent.kernel.km.provisioner.pid))
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Count claims that could not be checked as skipped; after the last cell, keep the chapter."""
    report = yield
    if not isinstance(item, IPyNbCell):
        return report
    run = getattr(item.parent, "run", None)
    if report.when == "call" and report.passed:
        if run:
            run.passed.add(item.cell_num)
        reasons = [
            line.removeprefix(SKIPPED)
            for line in stream(item, "stdout").splitlines()
            if line.startswith(SKIPPED)
        ]
        if reasons:
            if run:
                run.skipped += reasons
            report.outcome = "skipped"
            report.longrepr = (str(item.path), item.cell_num, f"Skipped: {'; '.join(reasons)}")
    if report.when == "call" and report.failed:
        first = item.parent.__dict__.setdefault("first_failure", item.name)
        if first != item.name:  # what follows a failure is mostly its echo
            report.longrepr = f"{item.nodeid} failed too, after {first}, which see"
    if run and report.when == "call" and _is_last(item):
        report.user_properties.append((LINE, _finish(item.parent, run)))
    return report


def _is_last(item) -> bool:
    count = sum(cell.cell_type == "code" for cell in item.parent.nb.cells)
    return item.cell_num == count - 1


def _finish(file: IPyNbFile, run: Run) -> str:
    """Keep a chapter that passed; the line that says how it went."""
    from tools import executions

    chapter = _chapter(file)
    seconds = time.monotonic() - run.started
    cells = [cell for cell in file.nb.cells if cell.cell_type == "code"]
    mebibytes = run.peak / 2**20
    line = f"{chapter.name}: {len(cells)} cells, {seconds:.1f} s, {mebibytes:.0f} MiB at most"
    if run.passed != set(range(len(cells))):
        return f"{line}; {len(cells) - len(run.passed)} did not pass, so nothing is kept"
    ran = [cell.source for cell in executions.chapter_code(file.nb)]
    if ran != [cell.source for cell in chapter.code_cells]:
        return f"{line}; the chapter changed meanwhile, so nothing is kept"
    if executions.code_key(chapter) != run.code:
        return f"{line}; the code changed meanwhile, so nothing is kept"
    items = [item for item in file.session.items if item.parent is file]
    if [item.cell_num for item in items] != list(range(len(cells))):
        return f"{line}; not every cell was asked for, so nothing is kept"
    for item, cell in zip(items, cells, strict=True):
        cell.outputs = item.test_outputs
        cell.execution_count = item.cell_num + 1
    facts = {
        "code": run.code,
        "data": executions.data_key(),
        "seconds": round(seconds, 2),
        "peak_mib": round(mebibytes, 1),
        "cells": len(cells),
        "environment": executions.environment(),
        "skipped": run.skipped,
    }
    executions.keep(chapter, file.nb, facts)
    skipped = f"; {len(run.skipped)} claims skipped" if run.skipped else ""
    return f"{line}{skipped}"


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    """In the main process, remember and print a line for each chapter that is done."""
    for key, line in report.user_properties:
        if key == LINE and report.when == "call":
            _lines.append(line)
            if _reporter:
                _reporter[0].ensure_newline()
                _reporter[0].write_line(f"  {line}")


_lines: list[str] = []
_reporter: list = []


def pytest_sessionstart(session):
    """Find the reporter of the main process; workers have none."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and not hasattr(session.config, "workerinput"):
        _reporter.append(reporter)


def pytest_sessionfinish(session):
    """In the main process, write the seconds and memory of all chapters for the colophon."""
    if hasattr(session.config, "workerinput") or not _lines:
        return
    from tools.chapters import notebook_chapters
    from tools.executions import write_report

    write_report(notebook_chapters())
