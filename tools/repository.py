"""The repository's address and commit: derived from git, never typed."""

import os
import re
import subprocess
from pathlib import Path

from tools.places import ROOT

NOTEBOOK_BRANCH = "notebooks"  # where the publish workflow puts the executed notebooks


def _git(*arguments: str, root: Path = ROOT) -> str | None:
    """What git prints, or None where there is no git, no repository or no such thing."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def normalise(address: str | None) -> str | None:
    """An https address without credentials and `.git`, or None for a path of one machine.

    `git@host:owner/name.git`, `ssh://git@host/owner/name` and `https://user@host/owner/name.git`
    all become `https://host/owner/name`.
    """
    if not address:
        return None
    address = address.strip().rstrip("/").removesuffix(".git")
    match = re.fullmatch(r"(?:ssh|git|https?)://(?:[^@/]+@)?([^/]+)/(.+)", address)
    match = match or re.fullmatch(r"(?:[\w.-]+@)([\w.-]+):(?!/)(.+)", address)
    return f"https://{match[1]}/{match[2]}" if match else None


def address(root: Path = ROOT) -> str | None:
    """The repository's address: `BOOK_REPOSITORY`, else git's `origin` if it is on a network."""
    given = os.environ.get("BOOK_REPOSITORY")
    return normalise(given) or given or normalise(_git("remote", "get-url", "origin", root=root))


def commit(root: Path = ROOT) -> str | None:
    """The full SHA of the commit that is checked out, or None outside git."""
    return _git("rev-parse", "HEAD", root=root)


def uncommitted(root: Path = ROOT) -> list[str]:
    """Paths that differ from the commit: what a notebook that installs the commit would miss."""
    listing = _git("status", "--porcelain", root=root)
    return [line.split(maxsplit=1)[1] for line in listing.splitlines()] if listing else []


def colab_link(notebook: str, repository: str | None) -> str | None:
    """Where Colab opens a published notebook; None unless the repository is on GitHub."""
    match = re.fullmatch(r"https://github\.com/([^/]+)/([^/]+)", normalise(repository) or "")
    if not match:
        return None
    owner, name = match.groups()
    return (
        f"https://colab.research.google.com/github/{owner}/{name}/blob/{NOTEBOOK_BRANCH}/{notebook}"
    )
