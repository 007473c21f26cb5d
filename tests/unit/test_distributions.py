"""vae.distributions against scipy, numpyro and sums in float64: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

import vae

KEY = jax.random.key(0)
# float32 has 24 bits; the sums here have a dozen terms of size 10 at most.
CLOSE = {"rtol": 2e-6, "atol": 5e-6}


def draws(seed, shape=(4, 3, 5)):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=shape).astype(np.float32),
        rng.normal(size=shape).astype(np.float32),
        rng.uniform(-3, 2, size=shape).astype(np.float32),
    )


def gradients(function, *arguments):
    argnums = tuple(range(len(arguments)))
    return jax.grad(lambda *a: function(*a).sum(), argnums)(*arguments)


# gaussian_kl


def kl_float64(mean, log_var):
    """E_q[log q - log p] by Gauss-Hermite quadrature of scipy's log-densities, latent by latent.

    Exact for the quadratic in z that it integrates; it shares no formula with gaussian_kl.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    mean, std = (
        mean[..., None].astype(np.float64),
        np.exp(log_var[..., None].astype(np.float64) / 2),
    )
    z = mean + std * nodes
    difference = stats.norm(mean, std).logpdf(z) - stats.norm.logpdf(z)
    return (difference @ weights / weights.sum()).sum(axis=-1)


def test_gaussian_kl_is_the_integral_of_scipys_log_densities():
    _, mean, log_var = draws(0)
    kl = vae.gaussian_kl(mean, log_var)
    assert kl.shape == (4, 3)
    np.testing.assert_allclose(kl, kl_float64(mean, log_var), **CLOSE)


def test_gaussian_kl_agrees_with_numpyro_in_value_and_gradient():
    dist = pytest.importorskip("numpyro.distributions")
    _, mean, log_var = draws(1)

    def theirs(mean, log_var):
        q = dist.Normal(mean, jnp.exp(log_var / 2)).to_event(1)
        return dist.kl_divergence(q, dist.Normal(jnp.zeros_like(mean), 1.0).to_event(1))

    np.testing.assert_allclose(vae.gaussian_kl(mean, log_var), theirs(mean, log_var), **CLOSE)
    for ours, other in zip(
        gradients(vae.gaussian_kl, mean, log_var), gradients(theirs, mean, log_var), strict=True
    ):
        np.testing.assert_allclose(ours, other, **CLOSE)


def test_gradient_of_gaussian_kl_is_mean_and_half_the_excess_variance():
    _, mean, log_var = draws(2)
    by_mean, by_log_var = gradients(vae.gaussian_kl, mean, log_var)
    np.testing.assert_allclose(by_mean, mean, **CLOSE)
    np.testing.assert_allclose(by_log_var, (np.exp(np.float64(log_var)) - 1) / 2, **CLOSE)


@pytest.mark.parametrize("log_var", [1e-2, 1e-3, 3e-4, -3e-4, -1e-3, -1e-2])
def test_gaussian_kl_keeps_its_digits_near_the_prior(log_var):
    # log_var has a relative rounding error of 6e-8; subtracting it from expm1 (log_var) leaves
    # log_var / 2 of it, so of the digits at 3e-4 an error of some 6e-8 / 1.5e-4 = 4e-4 remains.
    # exp(log_var) - 1 - log_var would be wrong by 6e-8 / (log_var**2 / 2): more than all of it.
    exact = 0.5 * (np.expm1(np.float64(np.float32(log_var))) - np.float64(np.float32(log_var)))
    kl = vae.gaussian_kl(jnp.zeros(1), jnp.array([log_var]))
    np.testing.assert_allclose(kl, exact, rtol=2e-3)


def test_gaussian_kl_of_the_prior_is_zero_with_zero_gradient():
    assert vae.gaussian_kl(jnp.zeros(7), jnp.zeros(7)) == 0
    for gradient in gradients(vae.gaussian_kl, jnp.zeros(7), jnp.zeros(7)):
        np.testing.assert_array_equal(gradient, np.zeros(7))


vectors = hnp.arrays(np.float32, 3, elements=st.floats(-5, 5, width=32))


@settings(deadline=None, max_examples=100, derandomize=True)
@given(vectors, vectors)
def test_kl_is_never_negative_and_zero_only_near_the_prior(mean, log_var):
    kl = float(vae.gaussian_kl(mean, log_var))
    assert kl >= 0
    # Each of the two halves alone bounds it: mean^2 / 2, and for |log_var| <= 5 the convex
    # expm1(v) - v is at least v^2 / 6 (it is smallest against v^2 at -5: 4.0 / 25 = 0.16).
    # 1e-5: rounding of a sum below 300 at log_var = 5 does not matter where kl is that large.
    low = 0.5 * np.sum(np.float64(mean) ** 2 + 0.16 * np.float64(log_var) ** 2)
    assert kl >= low * (1 - 1e-5) - 1e-7


# gaussian_log_prob


def test_gaussian_log_prob_is_scipys():
    x, mean, log_var = draws(3)
    std = np.exp(np.float64(log_var) / 2)
    # (x - mean)^2 / var reaches several hundred at log_var = -3: rtol carries it.
    np.testing.assert_allclose(
        vae.gaussian_log_prob(x, mean, log_var),
        stats.norm(np.float64(mean), std).logpdf(x).sum(axis=-1),
        **CLOSE,
    )


def test_gaussian_log_prob_agrees_with_numpyro_in_value_and_gradient():
    dist = pytest.importorskip("numpyro.distributions")
    arrays = draws(4)

    def theirs(x, mean, log_var):
        return dist.Normal(mean, jnp.exp(log_var / 2)).to_event(1).log_prob(x)

    np.testing.assert_allclose(vae.gaussian_log_prob(*arrays), theirs(*arrays), **CLOSE)
    for ours, other in zip(
        gradients(vae.gaussian_log_prob, *arrays), gradients(theirs, *arrays), strict=True
    ):
        np.testing.assert_allclose(ours, other, rtol=1e-5, atol=1e-5)


def test_gradient_of_gaussian_log_prob_by_hand():
    x, mean, log_var = draws(5)
    by_x, by_mean, by_log_var = gradients(vae.gaussian_log_prob, x, mean, log_var)
    d, precision = np.float64(x) - mean, np.exp(-np.float64(log_var))
    np.testing.assert_allclose(by_x, -d * precision, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_mean, d * precision, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_log_var, (d**2 * precision - 1) / 2, rtol=1e-5, atol=1e-5)


def test_gaussian_log_prob_broadcasts_a_scalar_log_var_and_extra_leading_axes():
    x, mean, _ = draws(6)
    many = vae.gaussian_log_prob(x, np.stack([mean, mean + 1]), -0.5)
    assert many.shape == (2, 4, 3)
    np.testing.assert_allclose(
        many[1], vae.gaussian_log_prob(x, mean + 1, np.full(5, -0.5)), **CLOSE
    )


# bernoulli_log_prob


def binary_and_logits(seed, shape=(4, 3, 5)):
    rng = np.random.default_rng(seed)
    return rng.integers(2, size=shape).astype(np.float32), (3 * rng.normal(size=shape)).astype(
        np.float32
    )


def test_bernoulli_log_prob_of_binary_pixels_is_scipys():
    x, logits = binary_and_logits(0)
    p = 1 / (1 + np.exp(-np.float64(logits)))
    np.testing.assert_allclose(
        vae.bernoulli_log_prob(x, logits), stats.bernoulli(p).logpmf(x).sum(axis=-1), **CLOSE
    )


def test_bernoulli_log_prob_of_grey_pixels_is_the_cross_entropy():
    _, logits = binary_and_logits(1)
    x = np.random.default_rng(1).uniform(size=logits.shape).astype(np.float32)
    p = 1 / (1 + np.exp(-np.float64(logits)))
    expected = (x * np.log(p) + (1 - x) * np.log1p(-p)).sum(axis=-1)
    np.testing.assert_allclose(vae.bernoulli_log_prob(x, logits), expected, **CLOSE)


def test_bernoulli_log_prob_agrees_with_numpyro_in_value_and_gradient():
    dist = pytest.importorskip("numpyro.distributions")
    x, logits = binary_and_logits(2)

    def theirs(logits):
        return dist.Bernoulli(logits=logits).to_event(1).log_prob(x)

    np.testing.assert_allclose(vae.bernoulli_log_prob(x, logits), theirs(logits), **CLOSE)
    ours = jax.grad(lambda logits: vae.bernoulli_log_prob(x, logits).sum())(logits)
    np.testing.assert_allclose(ours, jax.grad(lambda v: theirs(v).sum())(logits), **CLOSE)


def test_gradient_of_bernoulli_log_prob_is_x_minus_the_probability():
    x, logits = binary_and_logits(3)
    gradient = jax.grad(lambda logits: vae.bernoulli_log_prob(x, logits).sum())(logits)
    np.testing.assert_allclose(gradient, x - 1 / (1 + np.exp(-np.float64(logits))), **CLOSE)


@pytest.mark.parametrize("x", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("logit", [0.0, 80.0, -80.0, 1e4, -1e4, 1e30, -1e30])
def test_bernoulli_log_prob_is_finite_at_any_finite_logit(x, logit):
    x, logits = jnp.array([x]), jnp.array([logit])
    value, gradient = jax.value_and_grad(lambda v: vae.bernoulli_log_prob(x, v))(logits)
    # log p = x l - log(1 + e^l), computed in float64 without overflow.
    exact = float(x[0]) * float(logits[0]) - np.logaddexp(0, np.float64(logits[0]))
    np.testing.assert_allclose(value, exact, rtol=1e-6)
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("bad", [-0.01, 1.01, 255.0, np.nan, np.inf])
def test_bernoulli_log_prob_rejects_what_leaves_the_unit_interval(bad):
    x = np.full((2, 3), 0.5, np.float32)
    x[1, 2] = bad
    with pytest.raises(ValueError, match=r"^x must lie in \[0, 1\].*got values from"):
        vae.bernoulli_log_prob(x, jnp.zeros((2, 3)))


def test_bernoulli_log_prob_accepts_the_ends_of_the_interval_and_integers():
    x = np.array([0, 1], np.uint8)
    assert vae.bernoulli_log_prob(x, jnp.zeros(2)) == pytest.approx(2 * np.log(0.5))


# reparameterize


def test_samples_have_the_mean_and_the_standard_deviation_asked_for():
    n, mean, log_var = 40_000, jnp.array([-1.0, 0.0, 2.0]), jnp.array([-2.0, 0.0, 1.5])
    z = np.asarray(vae.reparameterize(KEY, jnp.tile(mean, (n, 1)), log_var), np.float64)
    std = np.exp(log_var / 2)
    # Five standard errors: std / sqrt(n) for the mean, std / sqrt(2n) for the deviation.
    np.testing.assert_array_less(np.abs(z.mean(axis=0) - mean), 5 * std / np.sqrt(n))
    np.testing.assert_array_less(np.abs(z.std(axis=0) - std), 5 * std / np.sqrt(2 * n))
    assert stats.kstest((z[:, 2] - 2) / std[2], "norm").pvalue > 1e-3


def test_every_entry_has_an_eps_of_its_own():
    z = np.asarray(vae.reparameterize(KEY, jnp.zeros((5, 4, 3)), jnp.zeros(3)))
    assert len(np.unique(z)) == z.size
    n = 20_000
    z = np.asarray(vae.reparameterize(KEY, jnp.zeros((n, 3)), jnp.zeros(())))
    # Correlations between latents, and between neighbouring examples, are zero to 5 / sqrt(n).
    assert np.abs(np.corrcoef(z.T) - np.eye(3)).max() < 5 / np.sqrt(n)
    assert abs(np.corrcoef(z[:-1, 0], z[1:, 0])[0, 1]) < 5 / np.sqrt(n)


def test_the_key_decides_the_sample():
    again = [vae.reparameterize(jax.random.key(s), jnp.zeros(9), jnp.zeros(9)) for s in (1, 1, 2)]
    np.testing.assert_array_equal(again[0], again[1])
    assert (np.asarray(again[0]) != np.asarray(again[2])).all()


def test_gradients_of_a_sample_are_one_and_half_eps_std():
    _, mean, log_var = draws(7)
    by_mean, by_log_var = gradients(lambda m, v: vae.reparameterize(KEY, m, v), mean, log_var)
    np.testing.assert_array_equal(by_mean, np.ones_like(mean))
    eps_std = vae.reparameterize(KEY, jnp.zeros_like(mean), log_var)
    np.testing.assert_allclose(by_log_var, np.asarray(eps_std) / 2, rtol=1e-6)


def test_the_same_key_gives_the_same_eps_whatever_mean_and_log_var():
    eps = vae.reparameterize(KEY, jnp.zeros(6), jnp.zeros(6))
    z = vae.reparameterize(KEY, jnp.full(6, 3.0), jnp.full(6, 2 * np.log(0.5)))
    np.testing.assert_allclose(z, 3 + 0.5 * eps, rtol=1e-6)


# multivariate_gaussian_kl


def covariances(seed, shape, dim):
    """Well-conditioned random covariances."""
    factor = np.random.default_rng(seed).normal(size=(*shape, dim, dim))
    return (factor @ np.swapaxes(factor, -1, -2) / dim + 0.5 * np.eye(dim)).astype(np.float32)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_kl_of_full_covariances_is_numpyros_in_value_and_gradient(dim):
    dist = pytest.importorskip("numpyro.distributions")
    rng = np.random.default_rng(dim)
    mean, other_mean = rng.normal(size=(2, 4, dim)).astype(np.float32)
    covariance, other = covariances(1, (4,), dim), covariances(2, (4,), dim)

    def theirs(mean, factor, other_mean, other_factor):
        q = dist.MultivariateNormal(mean, factor @ jnp.swapaxes(factor, -1, -2))
        p = dist.MultivariateNormal(other_mean, other_factor @ jnp.swapaxes(other_factor, -1, -2))
        return dist.kl_divergence(q, p)

    def ours(mean, factor, other_mean, other_factor):
        squares = (f @ jnp.swapaxes(f, -1, -2) for f in (factor, other_factor))
        covariance, other_covariance = squares
        return vae.multivariate_gaussian_kl(mean, covariance, other_mean, other_covariance)

    arguments = mean, jnp.linalg.cholesky(covariance), other_mean, jnp.linalg.cholesky(other)
    kl = ours(*arguments)
    assert kl.shape == (4,)
    np.testing.assert_allclose(kl, theirs(*arguments), rtol=1e-5, atol=1e-5)
    for a, b in zip(gradients(ours, *arguments), gradients(theirs, *arguments), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_kl_of_full_covariances_is_an_average_of_scipys_log_densities():
    rng = np.random.default_rng(3)
    mean, other_mean = rng.normal(size=(2, 3))
    covariance, other = covariances(4, (), 3), covariances(5, (), 3)
    q, p = stats.multivariate_normal(mean, covariance), stats.multivariate_normal(other_mean, other)
    z = q.rvs(200_000, random_state=6)
    log_ratio = q.logpdf(z) - p.logpdf(z)
    kl = vae.multivariate_gaussian_kl(*map(jnp.float32, (mean, covariance, other_mean, other)))
    assert abs(log_ratio.mean() - kl) < 5 * log_ratio.std() / np.sqrt(len(z))


def test_the_kl_of_full_covariances_contains_the_diagonal_one():
    _, mean, log_var = draws(7, (4, 3))
    diagonal = jax.vmap(jnp.diag)(jnp.exp(log_var))
    kl = vae.multivariate_gaussian_kl(mean, diagonal, jnp.zeros(3), jnp.eye(3))
    np.testing.assert_allclose(kl, vae.gaussian_kl(mean, log_var), rtol=1e-5, atol=1e-5)
    same = vae.multivariate_gaussian_kl(mean, diagonal, mean, diagonal)
    np.testing.assert_allclose(same, 0, atol=1e-5)


def test_the_kl_of_full_covariances_is_the_same_in_other_coordinates():
    mean, other_mean = np.random.default_rng(8).normal(size=(2, 3)).astype(np.float32)
    covariance, other = covariances(9, (), 3), covariances(10, (), 3)
    turn = np.random.default_rng(11).normal(size=(3, 3)).astype(np.float32) + 2 * np.eye(3)
    turn = turn.astype(np.float32)
    here = vae.multivariate_gaussian_kl(mean, covariance, other_mean, other)
    turned = (turn @ covariance @ turn.T, turn @ other @ turn.T)
    there = vae.multivariate_gaussian_kl(turn @ mean, turned[0], turn @ other_mean, turned[1])
    np.testing.assert_allclose(here, there, rtol=1e-3)


def test_the_kl_of_full_covariances_broadcasts_one_against_many():
    means = jnp.asarray(draws(12, (4, 3))[0])
    one, many = covariances(13, (), 3), covariances(14, (4,), 3)
    together = vae.multivariate_gaussian_kl(means, one, jnp.zeros(3), many)
    alone = [
        vae.multivariate_gaussian_kl(mean, one, jnp.zeros(3), other)
        for mean, other in zip(means, many, strict=True)
    ]
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-5)
    compiled = jax.jit(vae.multivariate_gaussian_kl)(means, one, jnp.zeros(3), many)
    np.testing.assert_allclose(compiled, together, rtol=1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"covariance": np.eye(2)}, r"covariance must have shape \(\.\.\., 3, 3\), got \(2, 2\)"),
        ({"other_mean": np.zeros(2)}, "other_mean must have a last dimension of 3"),
        ({"other_covariance": -np.eye(3)}, "other_covariance must be positive definite.*-1"),
        ({"covariance": np.triu(np.ones((3, 3)))}, "covariance must be a finite, symmetric"),
        ({"covariance": np.full((3, 3), np.nan)}, "covariance must be a finite, symmetric"),
    ],
)
def test_what_is_no_covariance_is_refused(change, message):
    given = {
        "mean": np.zeros(3),
        "covariance": np.eye(3),
        "other_mean": np.zeros(3),
        "other_covariance": np.eye(3),
    }
    arguments = {name: jnp.asarray(a, jnp.float32) for name, a in (given | change).items()}
    with pytest.raises(ValueError, match=message):
        vae.multivariate_gaussian_kl(**arguments)
