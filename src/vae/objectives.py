"""What training maximises, bounds on log p(x) first: per example, in nats, higher is better."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vae import checks
from vae.distributions import gaussian_kl, gaussian_log_prob, reparameterize


class ELBO(NamedTuple):
    """The bound and its two terms, bound = log_likelihood - kl, each of shape (batch,), in nats.

    Derived in book/foundations/elbo.md, equation `eq-elbo-terms`.
    """

    bound: jax.Array
    log_likelihood: jax.Array
    kl: jax.Array


class BetaObjective(NamedTuple):
    """objective = log_likelihood - beta * kl; `kl` is the unweighted one. Each (batch,), in nats.

    Named in book/building/vae.md, equation `eq-beta`.
    """

    objective: jax.Array
    log_likelihood: jax.Array
    kl: jax.Array


def elbo(model, x: jax.Array, key: jax.Array) -> ELBO:
    """The evidence lower bound, estimated with one sample of q(z|x) per example.

    Shapes: x (batch, data_dim); returns (bound, log_likelihood, kl), each (batch,), in nats.
    Raises TypeError or ValueError where x does not fit the model.
    Derived in book/foundations/elbo.md, equation `eq-elbo-terms`; Kingma & Welling 2013, eq. 10.
    """
    mean, log_var = model.encode(x)
    z = reparameterize(key, mean, log_var)
    log_likelihood = model.log_likelihood(x, z)
    kl = gaussian_kl(mean, log_var)
    return ELBO(log_likelihood - kl, log_likelihood, kl)


def beta_objective(
    model, x: jax.Array, key: jax.Array, beta: float = 1.0, free_bits: float = 0.0
) -> BetaObjective:
    """The bound with its KL weighted by beta, and free_bits nats of each latent's KL at no cost.

    The ELBO at beta = 1 without free bits, and no ELBO elsewhere: for beta > 1 it is a looser lower
    bound, for beta < 1 it may exceed log p(x). With free bits a latent is charged the larger of
    free_bits and its KL averaged over the batch. The `kl` returned is the KL itself, neither
    weighted nor floored. Shapes as in `elbo`. Raises ValueError for a negative or non-finite beta
    or free_bits.
    Named in book/building/vae.md, equation `eq-beta`, Higgins et al. 2017; free bits in
    book/building/training.md, equation `eq-free-bits`, Kingma et al. 2016, Appendix C.8.
    """
    checks.non_negative_float("beta", beta)
    checks.non_negative_float("free_bits", free_bits)
    mean, log_var = model.encode(x)
    log_likelihood = model.log_likelihood(x, reparameterize(key, mean, log_var))
    latent_kl = gaussian_kl(mean[..., None], log_var[..., None])  # (batch, latent_dim)
    # Where the batch mean is below free_bits, every example pays the constant: no gradient.
    charged = jnp.where(jnp.mean(latent_kl, axis=0) > free_bits, latent_kl, free_bits)
    objective = log_likelihood - beta * jnp.sum(charged, axis=-1)
    return BetaObjective(objective, log_likelihood, jnp.sum(latent_kl, axis=-1))


def reconstruction(model, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """log p(x|code) at the code of each x: what a plain autoencoder is trained for.

    Nothing is drawn, so the key that `fit` passes goes unused. Shapes: model an `Autoencoder`, x
    (batch, data_dim); returns (batch,), in nats.
    Derived in book/foundations/autoencoders.md, equation `eq-reconstruction`.
    """
    return model.log_likelihood(x, model.encode(x))


def log_importance_weights(model, x: jax.Array, key: jax.Array, num_samples: int) -> jax.Array:
    """log p(x, z) - log q(z|x) at num_samples draws z of q(z|x) per example, in nats.

    Shapes: x (batch, data_dim); returns (num_samples, batch).
    Derived in book/foundations/elbo.md, equation `eq-importance`.
    """
    num_samples = checks.positive_int("num_samples", num_samples)
    mean, log_var = model.encode(x)
    z = reparameterize(key, jnp.broadcast_to(mean, (num_samples, *mean.shape)), log_var)
    return model.log_likelihood(x, z) + model.log_prior(z) - gaussian_log_prob(z, mean, log_var)


def iwae_bound(model, x: jax.Array, key: jax.Array, num_samples: int) -> jax.Array:
    """The importance-weighted bound: log of the mean weight over num_samples draws of q(z|x).

    Its expectation lies between the ELBO and log p(x) and grows with num_samples. Shapes: x
    (batch, data_dim); returns (batch,), in nats. Raises ValueError if num_samples is below 1.
    Derived in book/foundations/elbo.md, equation `eq-iwae`; Burda et al. 2015, eq. 8.
    """
    log_weights = log_importance_weights(model, x, key, num_samples)
    return jax.nn.logsumexp(log_weights, axis=0) - jnp.log(num_samples)


def binarized(objective):
    """The objective on black and white images, drawn anew from the intensities at every call.

    Takes an objective such as `elbo`, returns one for which each pixel of x in [0, 1] is the
    probability of a 1: resampled binarisation. Its values are bounds on log-probabilities of
    binary images, a scale of their own. Shapes and errors are those of the objective.
    Derived in book/reproducing/evidence.md, equation `eq-binarized`; Salakhutdinov & Murray 2008,
    Burda et al. 2015, Section 5.
    """

    def on_binarized(model, x: jax.Array, key: jax.Array, **arguments):
        checks.unit_interval("x", x)
        image_key, key = jax.random.split(key)
        return objective(
            model, jax.random.bernoulli(image_key, x).astype(x.dtype), key, **arguments
        )

    return on_binarized
