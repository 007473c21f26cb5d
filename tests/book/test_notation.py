"""The page of symbols names what there is in the package, and all of it."""

import inspect
import re

from tools.places import BOOK

import vae

TEXT = (BOOK / "appendix" / "notation.md").read_text(encoding="utf-8")


def test_every_name_of_the_page_is_in_the_package():
    names = re.findall(r"`vae\.([\w.]+)`", TEXT)
    assert len(names) > 20
    for name in names:
        thing = vae
        for part in name.split("."):
            assert hasattr(thing, part), f"notation.md names vae.{name}, which there is not"
            thing = getattr(thing, part)


def test_every_public_function_and_class_is_on_the_page():
    public = {name for name in vae.__all__ if not inspect.ismodule(getattr(vae, name))}
    assert public <= set(re.findall(r"`vae\.(\w+)`", TEXT))


def test_the_models_methods_on_the_page_are_methods():
    methods = set(re.findall(r"`model\.(\w+)\(", TEXT))
    assert methods
    assert all(callable(getattr(vae.VAE, name, None)) for name in methods)
