"""Log-densities, KL divergences and sampling: pure functions of arrays, in nats.

All are batched over leading axes and sum over the last one. `log_var` is always log sigma^2.
"""

import jax
import jax.numpy as jnp

from vae import checks


def gaussian_kl(mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """KL(N(mean, diag exp(log_var)) || N(0, I)), summed over the last axis.

    Shapes: mean and log_var (..., latent_dim); returns (...,), in nats, at least 0.
    Derived in book/foundations/kl-divergence.md, equation `eq-gaussian-kl`; Kingma & Welling 2013,
    Appendix B.
    """
    # expm1 keeps the digits that exp(log_var) - 1 loses when q is close to the prior.
    return 0.5 * jnp.sum(mean**2 + jnp.expm1(log_var) - log_var, axis=-1)


def multivariate_gaussian_kl(
    mean: jax.Array, covariance: jax.Array, other_mean: jax.Array, other_covariance: jax.Array
) -> jax.Array:
    """KL(N(mean, covariance) || N(other_mean, other_covariance)), covariances of any shape.

    Shapes: means broadcast to (..., dim), covariances to (..., dim, dim); returns (...,), in nats.
    Raises ValueError where shapes do not fit, or a covariance is not symmetric and positive
    definite.
    Derived in book/foundations/kl-divergence.md, equation `eq-kl-full`.
    """
    dim = jnp.shape(mean)[-1]
    checks.last_dimension("other_mean", other_mean, dim)
    checks.covariance("covariance", covariance, dim)
    checks.covariance("other_covariance", other_covariance, dim)
    factors = jnp.linalg.cholesky(covariance), jnp.linalg.cholesky(other_covariance)
    shift = (other_mean - mean)[..., None]
    batch = jnp.broadcast_shapes(*(a.shape[:-2] for a in (*factors, shift)))
    factor, other_factor = (jnp.broadcast_to(a, (*batch, dim, dim)) for a in factors)
    columns = jnp.concatenate([factor, jnp.broadcast_to(shift, (*batch, dim, 1))], axis=-1)
    # The factor of the other covariance as a yardstick: both forms are sums of squares in it.
    scaled = jax.lax.linalg.triangular_solve(other_factor, columns, left_side=True, lower=True)
    half_log_dets = (
        jnp.sum(jnp.log(jnp.diagonal(a, axis1=-2, axis2=-1)), axis=-1)
        for a in (other_factor, factor)
    )
    return 0.5 * (jnp.sum(scaled**2, axis=(-2, -1)) - dim) + jnp.subtract(*half_log_dets)


def gaussian_log_prob(x: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """Log-density of N(mean, diag exp(log_var)) at x, summed over the last axis.

    Shapes: x, mean and log_var broadcast to (..., dim); returns (...,), in nats.
    Stated in book/foundations/latent-variables.md, equation `eq-gaussian-log-prob`.
    """
    squared_distance = (x - mean) ** 2 * jnp.exp(-log_var)
    return -0.5 * jnp.sum(squared_distance + log_var + jnp.log(2 * jnp.pi), axis=-1)


def bernoulli_log_prob(x: jax.Array, logits: jax.Array) -> jax.Array:
    """log p(x) of Bernoulli pixels with p(x=1) = sigmoid(logits), summed over the last axis.

    Shapes: x in [0, 1] and logits broadcast to (..., dim); returns (...,), in nats. For grey x
    strictly between 0 and 1 it is a cross-entropy, not the logarithm of a probability.
    Raises ValueError if x leaves [0, 1].
    Derived in book/foundations/cross-entropy-and-mse.md, equation `eq-bernoulli`; Kingma & Welling
    2013, Appendix C.1.
    """
    checks.unit_interval("x", x)
    # log(1 + exp(logits)), without an exponential that can overflow.
    softplus = jnp.maximum(logits, 0) + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return jnp.sum(x * logits - softplus, axis=-1)


def reparameterize(key: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """A sample z = mean + exp(log_var / 2) * eps with eps ~ N(0, I), differentiable in both.

    Shapes: mean and log_var broadcast to the shape returned, (..., latent_dim); every entry has
    an eps of its own. The key must not be used again. Raises TypeError for what is no key.
    Derived in book/foundations/reparameterization.md, equation `eq-reparameterize`; Kingma &
    Welling 2013, Section 2.4.
    """
    checks.random_key("key", key)
    shape = jnp.broadcast_shapes(jnp.shape(mean), jnp.shape(log_var))
    eps = jax.random.normal(key, shape, dtype=jnp.result_type(mean, log_var))
    return mean + jnp.exp(0.5 * log_var) * eps
