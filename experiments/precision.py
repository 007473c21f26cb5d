"""Faster long runs: the products with the pixels' weights in bfloat16, everything else in float32.

Factors are rounded to bfloat16 (8 significant bits), their products are summed in float32: what a
TPU does to every product unless it is told otherwise. Where a processor has matrix units for it,
as the one of the recorded runs, a training step takes some two thirds of the time. Parameters,
optimiser, activations and bounds stay in float32.
"""

import jax
import jax.numpy as jnp

WIDE = 512  # inputs or outputs above which a layer's products are rounded: those of the pixels
BLOCK = 16  # rows, to a multiple of which a minibatch is padded


def half_products(x: jax.Array, weights: jax.Array, dimension_numbers, **_) -> jax.Array:
    """`jax.lax.dot_general` for `flax.nnx.Linear(dot_general=...)`: wide products in bfloat16.

    Shapes: x (..., inputs), weights (inputs, outputs); returns (..., outputs), float32. Raises
    ValueError for a product that is not that of a layer.
    """
    if weights.ndim != 2 or dimension_numbers != (((x.ndim - 1,), (0,)), ((), ())):
        raise ValueError(f"half_products multiplies x @ weights, got {dimension_numbers}")
    if max(weights.shape) <= WIDE:
        return jax.lax.dot_general(x, weights, dimension_numbers)
    rows = x.reshape(-1, x.shape[-1])
    return _product(rows, weights).reshape(*x.shape[:-1], weights.shape[-1])


def _dot(a: jax.Array, b: jax.Array, axis: int, other_axis: int) -> jax.Array:
    dimensions = ((axis,), (other_axis,)), ((), ())
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _product(x, weights):
    return _forward(x, weights)[0]


def _forward(x, weights):
    rounded = x.astype(jnp.bfloat16), weights.astype(jnp.bfloat16)
    return _dot(*rounded, 1, 0), rounded


def _backward(rounded, grad):
    x, weights = rounded
    grad = grad.astype(jnp.bfloat16)
    # Rows of zeros change no sum. They make XLA write the transpose of x out, and only then does
    # it hand this product to the matrix units.
    rows = -len(x) % BLOCK or BLOCK
    x, padded = jnp.pad(x.T, ((0, 0), (0, rows))), jnp.pad(grad, ((0, rows), (0, 0)))
    return _dot(grad, weights, 1, 1), _dot(x, padded, 1, 0)


_product.defvjp(_forward, _backward)
