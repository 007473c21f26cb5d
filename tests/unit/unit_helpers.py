"""Small models, data and closed forms that several test files share."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy import stats

import vae

DATA_DIM, LATENT_DIM = 6, 2


def small_vae(seed=0, likelihood="bernoulli", data_dim=DATA_DIM, hidden_dims=(8,)):
    """A model that compiles and trains in a second."""
    rngs = nnx.Rngs(seed)
    encoder = vae.MLPEncoder(data_dim, hidden_dims, LATENT_DIM, rngs=rngs)
    decoder = vae.MLPDecoder(LATENT_DIM, hidden_dims, data_dim, rngs=rngs)
    return vae.VAE(encoder, decoder, likelihood)


def stripes(n, data_dim=DATA_DIM, seed=0):
    """Learnable uint8 images: one half of the pixels bright, the other dark, with some grain."""
    rng = np.random.default_rng(seed)
    bright = rng.integers(2, size=(n, 1)) == (np.arange(data_dim) < data_dim // 2)
    return np.where(bright, 225, 30).astype(np.uint8) + rng.integers(30, size=bright.shape).astype(
        np.uint8
    )


def params_of(model) -> dict[str, np.ndarray]:
    """Copies of all parameters, by name."""
    leaves = jax.tree_util.tree_flatten_with_path(nnx.state(model, nnx.Param))[0]
    return {jax.tree_util.keystr(at): np.array(leaf) for at, leaf in leaves}


def assert_same_params(a, b):
    a, b = (params_of(m) if isinstance(m, nnx.Module) else m for m in (a, b))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_same_curve(a: vae.History, b: vae.History):
    """The same bits in everything but the seconds."""
    for field in dataclasses.fields(vae.History):
        if field.name != "seconds":
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


@dataclasses.dataclass
class LinearGaussian:
    """p(z) = N(0, I), p(x|z) = N(Wz + b, std^2 I), q(z|x) = N(Ax + a, diag var): all in float64.

    `model` is the same thing as a `vae.VAE`.
    """

    W: np.ndarray
    b: np.ndarray
    std: float
    A: np.ndarray
    a: np.ndarray
    var: np.ndarray

    @functools.cached_property
    def model(self):
        data_dim, latent_dim = self.W.shape
        encoder = vae.MLPEncoder(data_dim, (), latent_dim, rngs=nnx.Rngs(0))
        decoder = vae.MLPDecoder(latent_dim, (), data_dim, rngs=nnx.Rngs(0))
        set_linear(encoder.mean, self.A.T, self.a)
        set_linear(encoder.log_var, np.zeros_like(self.A.T), np.log(self.var))
        set_linear(decoder.output, self.W.T, self.b)
        return vae.VAE(encoder, decoder, vae.Gaussian(self.std))

    def evidence(self, x):
        covariance = self.W @ self.W.T + self.std**2 * np.eye(len(self.b))
        return stats.multivariate_normal(self.b, covariance).logpdf(x)

    def posterior(self, x):
        """The exact mean and covariance of p(z|x)."""
        precision = np.eye(self.W.shape[1]) + self.W.T @ self.W / self.std**2
        covariance = np.linalg.inv(precision)
        return covariance @ self.W.T @ (x - self.b) / self.std**2, covariance

    def gap(self, x):
        """KL(q(z|x) || p(z|x)), between Gaussians with full covariances."""
        mean, covariance = self.posterior(x)
        difference, inverse = self.A @ x + self.a - mean, np.linalg.inv(covariance)
        return 0.5 * (
            np.trace(inverse * self.var)
            + difference @ inverse @ difference
            - len(mean)
            + np.linalg.slogdet(covariance)[1]
            - np.log(self.var).sum()
        )

    def terms(self, x):
        """The expectations of (log p(x|z), KL) under q."""
        mean = self.A @ x + self.a
        squared = np.sum((x - self.b - self.W @ mean) ** 2) + np.sum(self.var * self.W**2)
        log_likelihood = -0.5 * squared / self.std**2
        log_likelihood -= 0.5 * len(x) * np.log(2 * np.pi * self.std**2)
        return log_likelihood, 0.5 * np.sum(mean**2 + self.var - 1 - np.log(self.var))

    def bound(self, x):
        """The exact ELBO."""
        return np.subtract(*self.terms(x))


def set_linear(layer, kernel, bias):
    layer.kernel = nnx.Param(jnp.asarray(kernel, jnp.float32))
    layer.bias = nnx.Param(jnp.asarray(bias, jnp.float32))


def at_posterior(W, b, std) -> LinearGaussian:
    """A linear-Gaussian model whose q is the true posterior; needs orthogonal columns in W."""
    var = 1 / (1 + np.sum(W**2, axis=0) / std**2)
    A = (W * var).T / std**2
    return LinearGaussian(W, b, std, A, -A @ b, var)


ORTHOGONAL = np.array([[1.0, 1.0], [1.0, -1.0], [0.5, 0.0], [0.0, 0.7], [0.0, 0.0]])
OFFSET = np.array([0.3, -0.2, 0.0, 0.5, 1.0])
X = np.array([1.2, -0.7, 0.4, 0.9, 0.6])


def standard_error(samples) -> float:
    samples = np.asarray(samples, np.float64)
    return samples.std(ddof=1) / np.sqrt(len(samples))


def copies(x, n):
    """The same example n times, each to get a draw of its own."""
    return jnp.tile(jnp.asarray(x, jnp.float32), (n, 1))
