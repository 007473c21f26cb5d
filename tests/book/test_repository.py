"""The repository's address is derived, and gives no link where there is none."""

import pytest
from tools import repository


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("git@github.com:owner/name.git", "https://github.com/owner/name"),
        ("ssh://git@github.com/owner/name.git", "https://github.com/owner/name"),
        ("https://user:secret@github.com/owner/name.git/", "https://github.com/owner/name"),
        ("http://example.org/a/b/c", "https://example.org/a/b/c"),
        ("/srv/git/name.git", None),
        ("../name", None),
        ("file:///srv/name", None),
        ("", None),
        (None, None),
    ],
)
def test_addresses_are_made_https_without_credentials(given, expected):
    assert repository.normalise(given) == expected


def test_the_environment_comes_before_origin(monkeypatch, tmp_path):
    monkeypatch.delenv("BOOK_REPOSITORY", raising=False)
    assert repository.address(tmp_path) is None
    monkeypatch.setenv("BOOK_REPOSITORY", "https://example.org/o/r")
    assert repository.address(tmp_path) == "https://example.org/o/r"
    monkeypatch.setenv("BOOK_REPOSITORY", "git@example.org:o/r.git")
    assert repository.address(tmp_path) == "https://example.org/o/r"
    monkeypatch.setenv("BOOK_REPOSITORY", "file:///srv/clone")
    assert repository.address(tmp_path) == "file:///srv/clone"


def test_colab_opens_github_alone():
    link = repository.colab_link("a/b.ipynb", "https://github.com/owner/name")
    assert link == ("https://colab.research.google.com/github/owner/name/blob/notebooks/a/b.ipynb")
    assert repository.colab_link("a/b.ipynb", "https://example.org/owner/name") is None
    assert repository.colab_link("a/b.ipynb", None) is None
