"""What all unit tests share."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def no_compiled_program_outlives_its_file():
    """A process may map some 65,000 pieces of memory; kept, all programs together need more."""
    yield
    jax.clear_caches()
