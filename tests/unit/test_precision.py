"""experiments.precision: products in bfloat16 are those in float32, but for rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments import paper
from experiments.precision import WIDE, half_products
from flax import nnx

import vae

KEY = jax.random.key(0)
ROUNDED = 2.0**-8  # of a factor, at most


@pytest.mark.parametrize("rows", [(100,), (96,), (3, 7), (1,)])
def test_product_and_gradients_are_those_of_single_precision(rows):
    keys = jax.random.split(KEY, 3)
    x = jax.random.normal(keys[0], (*rows, 784))
    weights = jax.random.normal(keys[1], (784, 100))
    grad = jax.random.normal(keys[2], (*rows, 100))
    contraction = (((x.ndim - 1,), (0,)), ((), ()))
    ours, pull = jax.vjp(lambda x, w: half_products(x, w, contraction), x, weights)
    theirs, reference = jax.vjp(jnp.matmul, x, weights)
    assert ours.dtype == jnp.float32 and ours.shape == theirs.shape
    pairs = [(ours, theirs), *zip(pull(grad), reference(grad), strict=True)]
    for a, b in pairs:
        assert a.dtype == b.dtype and a.shape == b.shape
        error = np.linalg.norm(a - b) / np.linalg.norm(b)
        assert 1e-5 < error < ROUNDED  # rounded, and no more than rounded


def test_narrow_layers_stay_in_single_precision():
    x, weights = jax.random.normal(KEY, (5, 500)), jax.random.normal(KEY, (500, 500))
    assert max(weights.shape) <= WIDE
    contraction = (((1,), (0,)), ((), ()))
    np.testing.assert_allclose(
        half_products(x, weights, contraction), x @ weights, rtol=1e-4, atol=1e-4
    )


def test_what_is_no_product_of_a_layer_is_refused():
    x = jnp.ones((5, 400))
    with pytest.raises(ValueError, match="multiplies x @ weights"):
        half_products(x, jnp.ones((300, 400)), (((1,), (1,)), ((), ())))


def test_the_bound_of_the_papers_model_hardly_changes():
    x = jax.random.uniform(KEY, (50, 784))
    whole, half = (paper.make_model(0, 20, half=half) for half in (False, True))
    bounds = [vae.elbo(model, x, KEY).bound for model in (whole, half)]
    np.testing.assert_allclose(*bounds, rtol=1e-4)
    assert np.any(np.asarray(bounds[0] != bounds[1]))
    grads = [
        nnx.grad(lambda model: vae.elbo(model, x, KEY).bound.mean())(model)
        for model in (whole, half)
    ]
    for a, b in zip(*(jax.tree.leaves(nnx.state(g)) for g in grads), strict=True):
        assert np.linalg.norm(a - b) < 0.02 * np.linalg.norm(a) + 1e-4
