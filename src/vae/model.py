"""The models: a VAE with its standard normal prior and its likelihood, and a plain autoencoder."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx

from vae import checks
from vae.distributions import bernoulli_log_prob, gaussian_log_prob, reparameterize


@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """Independent Bernoulli pixels; the decoder returns their logits.

    Derived in book/foundations/cross-entropy-and-mse.md, equation `eq-bernoulli`; Kingma & Welling
    2013, Appendix C.1.
    """

    def log_prob(self, x: jax.Array, logits: jax.Array) -> jax.Array:
        """log p(x|z), shape (...,), in nats; raises ValueError if x leaves [0, 1]."""
        return bernoulli_log_prob(x, logits)

    def mean(self, logits: jax.Array) -> jax.Array:
        """The mean image E[x|z] = sigmoid(logits), shape (..., data_dim)."""
        return jax.nn.sigmoid(logits)

    def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
        """A black and white image x of p(x|z), shape (..., data_dim), no gradient through it."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(logits.dtype)

    def check(self, name: str, x) -> None:
        """Raise ValueError if x leaves [0, 1]."""
        checks.unit_interval(name, x)


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Gaussian pixels of one fixed standard deviation; the decoder returns their means.

    Raises ValueError unless std is above 0.
    Derived in book/foundations/cross-entropy-and-mse.md, equation `eq-gaussian-mse`.
    """

    std: float

    def __post_init__(self):
        checks.positive_float("std", self.std)

    def log_prob(self, x: jax.Array, mean: jax.Array) -> jax.Array:
        """log p(x|z), shape (...,), in nats; raises ValueError if x is not finite."""
        checks.finite("x", x)
        return gaussian_log_prob(x, mean, 2 * jnp.log(self.std))

    def mean(self, mean: jax.Array) -> jax.Array:
        """The mean image E[x|z], shape (..., data_dim): what the decoder returned."""
        return mean

    def sample(self, key: jax.Array, mean: jax.Array) -> jax.Array:
        """An image x of p(x|z), shape (..., data_dim)."""
        return reparameterize(key, mean, jnp.full_like(mean, 2 * math.log(self.std)))

    def check(self, name: str, x) -> None:
        """Raise ValueError if x holds NaN or an infinity."""
        checks.finite(name, x)


class LearnedGaussian(nnx.Module):
    """Gaussian pixels whose variance is learned with the weights; the decoder returns their means.

    `log_var` is a parameter of shape (dim,): dim = 1 is one variance for all pixels, dim = data_dim
    one for each. It starts at std. On noise-free images its optimum is a variance of 0, where the
    likelihood has no bound. Raises ValueError unless dim is at least 1 and std above 0.
    Derived in book/foundations/cross-entropy-and-mse.md, equation `eq-learned-variance`.
    """

    def __init__(self, dim: int = 1, std: float = 1.0):
        dim, std = checks.positive_int("dim", dim), checks.positive_float("std", std)
        # With a dtype of its own: a weakly typed array would make `fit` compile once more.
        self.log_var = nnx.Param(jnp.full((dim,), 2 * math.log(std), jnp.float32))

    def log_prob(self, x: jax.Array, mean: jax.Array) -> jax.Array:
        """log p(x|z), shape (...,), in nats; raises ValueError if x is not finite."""
        checks.finite("x", x)
        log_var = self.log_var[...]
        if len(log_var) > 1:
            checks.last_dimension("x", x, len(log_var))
        return gaussian_log_prob(x, mean, log_var)

    def mean(self, mean: jax.Array) -> jax.Array:
        """The mean image E[x|z], shape (..., data_dim): what the decoder returned."""
        return mean

    def sample(self, key: jax.Array, mean: jax.Array) -> jax.Array:
        """An image x of p(x|z), shape (..., data_dim)."""
        return reparameterize(key, mean, jnp.broadcast_to(self.log_var[...], mean.shape))

    def check(self, name: str, x) -> None:
        """Raise ValueError if x holds NaN or an infinity."""
        checks.finite(name, x)


@dataclasses.dataclass(frozen=True)
class PredictedGaussian:
    """Gaussian pixels whose means and variances the decoder computes from z: `GaussianMLPDecoder`.

    Derived in book/reproducing/lower-bound.md, equation `eq-gaussian-decoder`; Kingma & Welling
    2013, Appendix C.2.
    """

    def log_prob(self, x: jax.Array, mean_and_log_var: tuple[jax.Array, jax.Array]) -> jax.Array:
        """log p(x|z), shape (...,), in nats; raises ValueError if x is not finite."""
        checks.finite("x", x)
        return gaussian_log_prob(x, *mean_and_log_var)

    def mean(self, mean_and_log_var: tuple[jax.Array, jax.Array]) -> jax.Array:
        """The mean image E[x|z], shape (..., data_dim)."""
        return mean_and_log_var[0]

    def sample(self, key: jax.Array, mean_and_log_var: tuple[jax.Array, jax.Array]) -> jax.Array:
        """An image x of p(x|z), shape (..., data_dim)."""
        return reparameterize(key, *mean_and_log_var)

    def check(self, name: str, x) -> None:
        """Raise ValueError if x holds NaN or an infinity."""
        checks.finite(name, x)


def as_likelihood(likelihood):
    """The likelihood object that a model was given, or that its name "bernoulli" stands for.

    Raises ValueError for anything else. Part of the model in book/building/vae.md, equation
    `eq-vae`.
    """
    if isinstance(likelihood, str) and likelihood == "bernoulli":
        return Bernoulli()
    if isinstance(likelihood, type) or not hasattr(likelihood, "log_prob"):
        raise ValueError(
            "likelihood must be 'bernoulli' or an object such as Bernoulli() or "
            f"Gaussian(std=0.1), got {likelihood!r}"
        )
    return likelihood


class Autoencoder(nnx.Module):
    """A plain autoencoder: each x has one code, and no distribution over codes is assumed.

    It takes the networks of a VAE; the code is the mean that the encoder computes, and its
    log-variance is not used. Shapes: x (..., data_dim), code (..., latent_dim). Raises ValueError
    when encoder and decoder disagree on latent_dim or data_dim.
    Built in book/foundations/autoencoders.md, equation `eq-autoencoder`.
    """

    def __init__(self, encoder, decoder, likelihood="bernoulli"):
        checks.same_dimensions(encoder, decoder)
        self.encoder, self.decoder = encoder, decoder
        self.likelihood = as_likelihood(likelihood)

    def encode(self, x: jax.Array) -> jax.Array:
        """The code of x, (..., latent_dim)."""
        return self.encoder(x)[0]

    def decode(self, code: jax.Array) -> jax.Array:
        """The mean image at a code, (..., data_dim)."""
        return self.likelihood.mean(self.decoder(code))

    def log_likelihood(self, x: jax.Array, code: jax.Array) -> jax.Array:
        """log p(x|code), summed over the pixels, in nats."""
        return self.likelihood.log_prob(x, self.decoder(code))

    def reconstruct(self, x: jax.Array) -> jax.Array:
        """The mean image at the code of x, (..., data_dim)."""
        return self.decode(self.encode(x))


class VAE(nnx.Module):
    """A prior p(z) = N(0, I), a decoder p(x|z) with its likelihood, an encoder q(z|x).

    Shapes: x (..., data_dim), z (..., latent_dim); log-values (...,), in nats. Raises ValueError
    when encoder and decoder disagree on latent_dim or data_dim.
    Built in book/building/vae.md, equation `eq-vae`; Kingma & Welling 2013, Section 3.
    """

    def __init__(self, encoder, decoder, likelihood="bernoulli"):
        checks.same_dimensions(encoder, decoder)
        self.encoder, self.decoder = encoder, decoder
        self.likelihood = as_likelihood(likelihood)

    def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The (mean, log_var) of q(z|x)."""
        return self.encoder(x)

    def decode(self, z: jax.Array) -> jax.Array:
        """The mean image of p(x|z), (..., data_dim)."""
        return self.likelihood.mean(self.decoder(z))

    def log_likelihood(self, x: jax.Array, z: jax.Array) -> jax.Array:
        """log p(x|z), summed over the pixels."""
        return self.likelihood.log_prob(x, self.decoder(z))

    def log_prior(self, z: jax.Array) -> jax.Array:
        """log p(z), summed over the latents."""
        return gaussian_log_prob(z, jnp.zeros_like(z), jnp.zeros_like(z))

    def reconstruct(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """The mean image of p(x|z) at one sample z of q(z|x), (..., data_dim)."""
        return self.decode(reparameterize(key, *self.encode(x)))

    def generate(self, key: jax.Array, n: int) -> jax.Array:
        """The mean images of p(x|z) at n samples z of the prior, (n, data_dim)."""
        n = checks.positive_int("n", n)
        checks.random_key("key", key)
        return self.decode(jax.random.normal(key, (n, self.decoder.latent_dim)))
