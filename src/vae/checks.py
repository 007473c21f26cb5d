"""Early, clear errors: each says which argument is wrong, what was given and what is expected.

Shapes and dtypes are known while JAX traces, so those checks also guard compiled code. Values are
not: the checks of values read concrete arrays and let traced ones pass.
"""

import numbers

import jax
import jax.numpy as jnp
import numpy as np


def is_traced(value) -> bool:
    """Whether `value` is inside a JAX transformation, where its entries cannot be read."""
    return isinstance(value, jax.core.Tracer)


def positive_int(name: str, value) -> int:
    """Return `value` as an int, or raise if it is not a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r} ({type(value).__name__})")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def positive_float(name: str, value) -> float:
    """Return `value` as a float, or raise if it is not a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and above 0, got {value}")
    return float(value)


def non_negative_float(name: str, value) -> None:
    """Raise unless a concrete `value` is one finite number of at least 0."""
    if is_traced(value):
        return
    if (
        isinstance(value, bool)
        or np.ndim(value)
        or not isinstance(value, (numbers.Real, jax.Array))
    ):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    if not (0 <= value < float("inf")):  # also true for NaN
        raise ValueError(f"{name} must be finite and at least 0, got {value}")


def random_key(name: str, key) -> None:
    """Raise unless `key` is a single JAX random key, new style or old."""
    if isinstance(key, jax.Array):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            if key.shape == ():
                return
        elif key.dtype == jnp.uint32 and key.shape == (2,):
            return
        given = f"an array of dtype {key.dtype} and shape {key.shape}"
    else:
        given = f"{key!r} ({type(key).__name__})"
    raise TypeError(f"{name} must be one JAX random key such as jax.random.key(0), got {given}")


def function_or_none(name: str, value) -> None:
    """Raise unless `value` can be called or is None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function or None, got {value!r}")


def float_array(name: str, value) -> None:
    """Raise unless `value` is an array of floating-point numbers."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        raise TypeError(f"{name} must be an array, got {type(value).__name__}")
    if not jnp.issubdtype(dtype, jnp.floating):
        hint = "; divide intensities 0..255 by 255" if dtype == np.uint8 else ""
        raise TypeError(f"{name} must hold floating-point numbers, got dtype {dtype}{hint}")


def last_dimension(name: str, value, expected: int) -> None:
    """Raise unless the last axis of `value` has length `expected`."""
    shape = np.shape(value)
    if not shape or shape[-1] != expected:
        raise ValueError(f"{name} must have a last dimension of {expected}, got shape {shape}")


def covariance(name: str, value, dim: int) -> None:
    """Raise unless `value` is (..., dim, dim) and, if concrete, symmetric positive definite."""
    shape = np.shape(value)
    if len(shape) < 2 or shape[-2:] != (dim, dim):
        raise ValueError(f"{name} must have shape (..., {dim}, {dim}), got {shape}")
    if is_traced(value):
        return
    array = np.asarray(value, np.float64)
    finite = np.isfinite(array).all()
    if not finite or not np.allclose(array, np.swapaxes(array, -1, -2), rtol=1e-4, atol=1e-6):
        raise ValueError(f"{name} must be a finite, symmetric matrix")
    least = np.linalg.eigvalsh(array).min() if array.size else 1.0
    if not least > 0:
        raise ValueError(f"{name} must be positive definite, but its least eigenvalue is {least}")


def same_dimensions(encoder, decoder) -> None:
    """Raise unless encoder and decoder agree on latent_dim and data_dim."""
    for name in ("latent_dim", "data_dim"):
        ours, theirs = getattr(encoder, name), getattr(decoder, name)
        if ours != theirs:
            raise ValueError(f"the encoder has {name} {ours}, the decoder has {theirs}")


def batch(name: str, value) -> None:
    """Raise unless `value` has a batch axis in front of its last one."""
    if np.ndim(value) < 2:
        raise ValueError(f"{name} must have shape (batch, data_dim), got shape {np.shape(value)}")


def finite(name: str, value) -> None:
    """Raise if a concrete `value` holds NaN or an infinity."""
    if is_traced(value) or not jnp.issubdtype(value.dtype, jnp.floating):
        return
    count = int(np.size(value) - np.isfinite(np.asarray(value)).sum())
    if count:
        raise ValueError(f"{name} must be finite, got {count} NaN or infinite of {np.size(value)}")


def unit_interval(name: str, value) -> None:
    """Raise if a concrete `value` has an entry outside [0, 1], or a NaN."""
    if is_traced(value):
        return
    array = np.asarray(value)
    if array.size == 0:
        return
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # also true for NaN
        raise ValueError(
            f"{name} must lie in [0, 1] under a Bernoulli likelihood, got values from {low} to "
            f"{high}; divide intensities 0..255 by 255"
        )
