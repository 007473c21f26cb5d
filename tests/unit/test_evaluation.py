"""vae.evaluate: the bound over a whole set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unit_helpers import OFFSET, ORTHOGONAL, X, at_posterior, small_vae, standard_error, stripes

import vae
from vae.evaluation import as_intensities

KEY = jax.random.key(4)


@pytest.fixture(scope="module")
def whole():
    model, images = small_vae(), stripes(50)
    return model, images, vae.evaluate(model, images, key=KEY)


def test_there_is_one_bound_per_example(whole):
    _, _, terms = whole
    for term in terms:
        assert term.shape == (50,) and np.isfinite(term).all()
    np.testing.assert_allclose(terms.bound, terms.log_likelihood - terms.kl, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 25, 50, 51])
def test_the_result_does_not_depend_on_the_batch_size(whole, batch_size):
    model, images, terms = whole
    other = vae.evaluate(model, images, key=KEY, batch_size=batch_size)
    for a, b in zip(terms, other, strict=True):
        # Sums in another order; a remainder that was dropped, padded or shifted would be visible.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_levels_and_intensities_are_evaluated_alike(whole):
    model, images, terms = whole
    for intensities in (images / np.float32(255), images / 255, (images / 255).tolist()):
        other = vae.evaluate(model, intensities, key=KEY)
        np.testing.assert_allclose(other.bound, terms.bound, rtol=1e-5, atol=1e-5)


def test_levels_become_intensities_from_0_to_1():
    levels = np.arange(256, dtype=np.uint8)
    # Within an ulp of the exact quotient, and never beyond 1, where the likelihood would object.
    np.testing.assert_allclose(as_intensities(jnp.asarray(levels)), levels / 255, rtol=1.2e-7)
    ends = as_intensities(jnp.array([0, 255], jnp.uint8))
    np.testing.assert_array_equal(ends, [0.0, 1.0])
    np.testing.assert_array_equal(jax.jit(as_intensities)(jnp.array([0, 255], jnp.uint8)), ends)
    floats = jnp.linspace(0, 1, 5)
    np.testing.assert_array_equal(as_intensities(floats), floats)


def test_every_example_has_noise_of_its_own():
    terms = vae.evaluate(small_vae(), np.tile(stripes(1), (30, 1)), key=KEY)
    assert len(np.unique(terms.log_likelihood)) == 30
    # q is the same for all of them, to the rounding of a vectorised product.
    np.testing.assert_allclose(terms.kl, terms.kl[0], rtol=1e-5)


def test_the_key_decides_the_result(whole):
    model, images, terms = whole
    np.testing.assert_array_equal(vae.evaluate(model, images, key=KEY).bound, terms.bound)
    other = vae.evaluate(model, images, key=jax.random.key(5))
    assert (other.log_likelihood != terms.log_likelihood).all()
    np.testing.assert_array_equal(other.kl, terms.kl)


def test_the_mean_agrees_with_elbo_and_with_the_closed_form():
    case, n = at_posterior(ORTHOGONAL, OFFSET, 0.8), 5000
    images = np.tile(X, (n, 1))
    ours = np.asarray(vae.evaluate(case.model, images, key=KEY, batch_size=640).bound)
    theirs = np.asarray(vae.elbo(case.model, jnp.asarray(images, jnp.float32), KEY).bound)
    # At the posterior the bound is the evidence; five standard errors of single-sample bounds.
    for values in (ours, theirs):
        assert abs(values.mean() - case.evidence(X)) < 5 * standard_error(values)


def test_old_style_keys_work_too():
    model, images = small_vae(), stripes(4)
    new = vae.evaluate(model, images, key=jax.random.key(0)).bound
    np.testing.assert_array_equal(new, vae.evaluate(model, images, key=jax.random.PRNGKey(0)).bound)
