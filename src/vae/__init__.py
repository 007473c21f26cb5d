"""Variational autoencoders in JAX: the package that the chapters of The Lower Bound build.

Log-values are in nats, sums run over pixels and latents, `log_var` is log sigma^2, and arrays are
batched over leading axes. `import vae` needs JAX, Flax, Optax and NumPy alone.
"""

from vae import baselines, checkpoints, datasets, distributions, evaluation, figures, networks
from vae.distributions import (
    bernoulli_log_prob,
    gaussian_kl,
    gaussian_log_prob,
    multivariate_gaussian_kl,
    reparameterize,
)
from vae.evaluation import evaluate, log_marginal_likelihood
from vae.model import VAE, Autoencoder, Bernoulli, Gaussian, LearnedGaussian, PredictedGaussian
from vae.networks import GaussianMLPDecoder, MLPDecoder, MLPEncoder
from vae.objectives import (
    ELBO,
    BetaObjective,
    beta_objective,
    binarized,
    elbo,
    iwae_bound,
    log_importance_weights,
    reconstruction,
)
from vae.training import History, fit, fit_many

__all__ = [
    "ELBO",
    "VAE",
    "Autoencoder",
    "Bernoulli",
    "BetaObjective",
    "Gaussian",
    "GaussianMLPDecoder",
    "History",
    "LearnedGaussian",
    "MLPDecoder",
    "MLPEncoder",
    "PredictedGaussian",
    "baselines",
    "bernoulli_log_prob",
    "beta_objective",
    "binarized",
    "checkpoints",
    "datasets",
    "distributions",
    "elbo",
    "evaluate",
    "evaluation",
    "figures",
    "fit",
    "fit_many",
    "gaussian_kl",
    "gaussian_log_prob",
    "iwae_bound",
    "log_importance_weights",
    "log_marginal_likelihood",
    "multivariate_gaussian_kl",
    "networks",
    "reconstruction",
    "reparameterize",
]
