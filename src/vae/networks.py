"""Encoders and decoders: `flax.nnx` modules that return the parameters of distributions."""

import numbers
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from vae import checks


class MLPEncoder(nnx.Module):
    """Fully connected encoder: x -> (mean, log_var) of the diagonal Gaussian q(z|x).

    Shapes: x (..., data_dim); mean and log_var (..., latent_dim). Raises TypeError unless x is
    floating-point, ValueError unless its last dimension is data_dim.
    Built in book/building/vae.md, equation `eq-encoder`; Kingma & Welling 2013, Appendix C.2.
    """

    def __init__(
        self,
        data_dim: int,
        hidden_dims: int | Sequence[int],
        latent_dim: int,
        *,
        rngs: nnx.Rngs,
        activation=jnp.tanh,
        **init,  # kernel_init, bias_init of every layer
    ):
        self.data_dim = checks.positive_int("data_dim", data_dim)
        self.latent_dim = checks.positive_int("latent_dim", latent_dim)
        self.hidden, width = hidden_layers(data_dim, hidden_dims, activation, rngs=rngs, **init)
        self.mean = nnx.Linear(width, latent_dim, rngs=rngs, **init)
        self.log_var = nnx.Linear(width, latent_dim, rngs=rngs, **init)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the mean and the log-variance of q(z|x)."""
        checks.float_array("x", x)
        checks.last_dimension("x", x, self.data_dim)
        h = self.hidden(x)
        return self.mean(h), self.log_var(h)


class MLPDecoder(nnx.Module):
    """Fully connected decoder: z -> one number per pixel, what the likelihood makes p(x|z) of.

    Shapes: z (..., latent_dim); returns (..., data_dim): logits under a Bernoulli likelihood,
    means under a Gaussian one. Raises like MLPEncoder.
    Built in book/building/vae.md, equation `eq-decoder`; Kingma & Welling 2013, Appendix C.1.
    """

    def __init__(
        self,
        latent_dim: int,
        hidden_dims: int | Sequence[int],
        data_dim: int,
        *,
        rngs: nnx.Rngs,
        activation=jnp.tanh,
        **init,  # kernel_init, bias_init of every layer
    ):
        self.latent_dim = checks.positive_int("latent_dim", latent_dim)
        self.data_dim = checks.positive_int("data_dim", data_dim)
        self.hidden, width = hidden_layers(latent_dim, hidden_dims, activation, rngs=rngs, **init)
        self.output = nnx.Linear(width, data_dim, rngs=rngs, **init)

    def __call__(self, z: jax.Array) -> jax.Array:
        """Return what the likelihood needs to know of p(x|z)."""
        checks.float_array("z", z)
        checks.last_dimension("z", z, self.latent_dim)
        return self.output(self.hidden(z))


class GaussianMLPDecoder(nnx.Module):
    """Fully connected decoder: z -> (mean, log_var) of the diagonal Gaussian p(x|z).

    The means go through a sigmoid, so that they are intensities in (0, 1). For a VAE with the
    likelihood `PredictedGaussian()`. Shapes: z (..., latent_dim); mean and log_var (...,
    data_dim). Raises like MLPEncoder.
    Built in book/reproducing/lower-bound.md, equation `eq-gaussian-decoder`; Kingma & Welling 2013,
    Section 5 and Appendix C.2.
    """

    def __init__(
        self,
        latent_dim: int,
        hidden_dims: int | Sequence[int],
        data_dim: int,
        *,
        rngs: nnx.Rngs,
        activation=jnp.tanh,
        **init,  # kernel_init, bias_init of every layer
    ):
        self.latent_dim = checks.positive_int("latent_dim", latent_dim)
        self.data_dim = checks.positive_int("data_dim", data_dim)
        self.hidden, width = hidden_layers(latent_dim, hidden_dims, activation, rngs=rngs, **init)
        self.mean = nnx.Linear(width, data_dim, rngs=rngs, **init)
        self.log_var = nnx.Linear(width, data_dim, rngs=rngs, **init)

    def __call__(self, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the mean and the log-variance of p(x|z)."""
        checks.float_array("z", z)
        checks.last_dimension("z", z, self.latent_dim)
        h = self.hidden(z)
        return jax.nn.sigmoid(self.mean(h)), self.log_var(h)


def hidden_layers(input_dim: int, hidden_dims, activation, *, rngs: nnx.Rngs, **init):
    """Fully connected layers with an activation after each: (the layers, the width they end in).

    `hidden_dims` is one width or a sequence of widths; an empty one leaves the input as it is.
    """
    if isinstance(hidden_dims, numbers.Integral):
        hidden_dims = [hidden_dims]
    elif not isinstance(hidden_dims, Iterable):
        raise TypeError(f"hidden_dims must be a width or a sequence of widths, got {hidden_dims!r}")
    layers, width = [], input_dim
    for hidden_dim in hidden_dims:
        checks.positive_int("hidden_dims", hidden_dim)
        layers += [nnx.Linear(width, hidden_dim, rngs=rngs, **init), activation]
        width = hidden_dim
    return nnx.Sequential(*layers), width
