"""Wake-sleep: encoder and decoder, each with an objective of its own."""

from typing import NamedTuple

import jax

from vae import checks
from vae.distributions import gaussian_kl, gaussian_log_prob, reparameterize


class WakeSleep(NamedTuple):
    """objective = what is maximised; log_likelihood - kl is the bound. Each (batch,), in nats.

    Derived in book/reproducing/lower-bound.md, equation `eq-wake-sleep`.
    """

    objective: jax.Array
    log_likelihood: jax.Array
    kl: jax.Array


def wake_sleep(model, x: jax.Array, key: jax.Array) -> WakeSleep:
    """One wake and one sleep phase on a minibatch, as an objective for `fit`.

    Wake: a latent is drawn from q(z|x) and held fixed; the decoder learns to explain x from it.
    Sleep: the decoder dreams, z from the prior and x from p(x|z), held fixed; the encoder learns to
    find the z of the dream. The gradient of the sum is that of the two phases, since each network
    meets one of them alone. The other two terms are those of the bound at the wake phase's draw,
    for the curve. Shapes: x (batch, data_dim). Raises TypeError or ValueError where x does not fit
    the model.
    Derived in book/reproducing/lower-bound.md, equation `eq-wake-sleep`; Hinton et al. 1995.
    """
    checks.batch("x", x)
    wake_key, latent_key, dream_key = jax.random.split(key, 3)
    mean, log_var = model.encode(x)
    z = jax.lax.stop_gradient(reparameterize(wake_key, mean, log_var))
    log_likelihood = model.log_likelihood(x, z)

    dreamed_z = jax.random.normal(latent_key, z.shape, z.dtype)
    dreamed_x = jax.lax.stop_gradient(model.likelihood.sample(dream_key, model.decoder(dreamed_z)))
    recognition = gaussian_log_prob(dreamed_z, *model.encode(dreamed_x))
    return WakeSleep(log_likelihood + recognition, log_likelihood, gaussian_kl(mean, log_var))
