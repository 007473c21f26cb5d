"""How good is a trained model: the bound over a whole set, and estimates of log p(x)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vae import checks
from vae.objectives import ELBO, elbo, log_importance_weights

_FLOATS_AT_ONCE = 2**21  # of decoder outputs held at a time: 8 MB, about what a cache holds


def as_intensities(images: jax.Array) -> jax.Array:
    """Images as floating-point numbers: uint8 levels 0..255 become intensities in [0, 1].

    Part of the first training run in book/building/vae.md, equation `eq-batch`.
    """
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


def evaluate(model, images, *, key: jax.Array, batch_size: int = 1000) -> ELBO:
    """The bound on each example of a set, one sample of q(z|x) each.

    Shapes: images (n, data_dim), uint8 levels or floating-point; returns (bound, log_likelihood,
    kl), each (n,), in nats. The mean over n is the score of the set. Every example has a key of
    its own, so the result does not depend on batch_size beyond float rounding.
    Raises TypeError for a model that has no bound. Used in book/building/vae.md, equation
    `eq-objective`.
    """
    check_bounded(model)
    images = check_images(model, images)
    batch_size = min(checks.positive_int("batch_size", batch_size), len(images))
    checks.random_key("key", key)
    return _evaluate(*nnx.split(model), images, key, batch_size)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _evaluate(graphdef, state, images, key, batch_size):
    model = nnx.merge(graphdef, state)

    def one_example(pair):
        image, key = pair
        terms = elbo(model, as_intensities(image)[None], key)
        return jax.tree.map(lambda term: term[0], terms)

    keys = jax.random.split(key, len(images))
    return jax.lax.map(one_example, (images, keys), batch_size=batch_size)


def log_marginal_likelihood(model, x, key: jax.Array, num_samples: int) -> jax.Array:
    """An estimate of log p(x) per example by importance sampling with q(z|x) as the proposal.

    It is the importance-weighted bound with num_samples draws, so it is low on average, less so
    with more samples. Memory does not grow with num_samples.
    Shapes: x (batch, data_dim) in floating point; returns (batch,), in nats. Raises TypeError or
    ValueError where x does not fit the model or num_samples is below 1.
    Derived in book/foundations/elbo.md, equation `eq-iwae`; Burda et al. 2015, Section 5.
    """
    num_samples = checks.positive_int("num_samples", num_samples)
    checks.float_array("x", x)
    checks.batch("x", x)
    checks.random_key("key", key)
    model.likelihood.check("x", x)
    chunk = max(1, min(num_samples, _FLOATS_AT_ONCE // max(1, x.size)))
    graphdef, state = nnx.split(model)
    return _log_mean_weight(graphdef, state, x, key, num_samples, chunk)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _log_mean_weight(graphdef, state, x, key, num_samples, chunk):
    model = nnx.merge(graphdef, state)
    chunks, rest = divmod(num_samples, chunk)

    def add_chunk(total, key):
        log_weights = log_importance_weights(model, x, key, chunk)
        return jnp.logaddexp(total, jax.nn.logsumexp(log_weights, axis=0)), None

    rest_key, *keys = jax.random.split(key, chunks + 1)
    total, _ = jax.lax.scan(add_chunk, jnp.full(len(x), -jnp.inf, x.dtype), jnp.stack(keys))
    if rest:
        log_weights = log_importance_weights(model, x, rest_key, rest)
        total = jnp.logaddexp(total, jax.nn.logsumexp(log_weights, axis=0))
    return total - jnp.log(num_samples)


def check_bounded(model) -> None:
    """Raise TypeError for a model without a prior, which has no bound to evaluate.

    Part of the first training run in book/building/vae.md, equation `eq-objective`.
    """
    if not hasattr(model, "log_prior"):
        raise TypeError(
            f"the bound needs a model with a prior, such as a VAE, and {type(model).__name__} has "
            "none; its `log_likelihood` says how well it reconstructs"
        )


def check_images(model, images, name: str = "images") -> jax.Array:
    """A set of images on the device, or a clear error that says why it is none.

    Raises TypeError for a dtype that is neither uint8 nor floating-point, ValueError for an empty
    set, a wrong shape, NaN, or intensities that the model's likelihood does not allow.
    Part of the first training run in book/building/vae.md, equation `eq-batch`.
    """
    if not isinstance(images, jax.Array):
        images = np.asarray(images)
    if images.ndim < 2 or len(images) == 0:
        raise ValueError(
            f"{name} must be a non-empty set of shape (n, data_dim), got shape {images.shape}"
        )
    checks.last_dimension(name, images, model.encoder.data_dim)
    if images.dtype != np.uint8:
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise TypeError(
                f"{name} must be uint8 levels 0..255 or floating-point, got dtype {images.dtype}"
            )
        checks.finite(name, images)
        model.likelihood.check(name, images)
        images = images.astype(np.float32)
    return jnp.asarray(images)
