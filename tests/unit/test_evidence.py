"""Estimates of log p(x), and what the gap is made of, on models where both are known exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats
from unit_helpers import (
    OFFSET,
    ORTHOGONAL,
    LinearGaussian,
    X,
    at_posterior,
    copies,
    small_vae,
    standard_error,
)

import vae
from vae.evaluation import evidence

KEY = jax.random.key(21)
# Columns that point the same way: given x, the two latents pull against each other. The encoder's
# Gaussian has none of that and is off, so that its weights are uneven.
W = np.array([[1.0, 0.9], [1.0, 0.8], [0.5, 0.6], [-0.3, 0.7], [0.0, 0.4]])
A = 0.9 * np.linalg.solve(W.T @ W + 0.25 * np.eye(2), W.T)
SHIFT = np.array([0.2, 0.1])
CASE = LinearGaussian(W, OFFSET, 0.5, A, SHIFT - A @ OFFSET, np.array([0.15, 0.4]))
XS = np.stack([X, -X, 0.5 * X])
EXACT = np.array([CASE.evidence(x) for x in XS])
TRUE = at_posterior(ORTHOGONAL, OFFSET, 0.8)


def images(xs=XS):
    return jnp.asarray(xs, jnp.float32)


def mean_of_weights(log_evidence):
    """The mean of the estimates of p(x) itself, relative to p(X), and its standard error."""
    relative = np.exp(np.asarray(log_evidence, np.float64) - CASE.evidence(X))
    return relative.mean(), standard_error(relative)


def test_the_posterior_of_the_case_is_correlated():
    _, covariance = CASE.posterior(X)
    assert covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]) < -0.6
    assert CASE.gap(X) > 0.5


# All three, against the exact evidence


def test_importance_sampling_is_within_a_twentieth_of_a_nat():
    estimate = evidence.importance_sampling(CASE.model, images(), KEY, (1000, 100_000))
    assert estimate.log_evidence.shape == estimate.standard_error.shape == (2, 3)
    np.testing.assert_allclose(estimate.log_evidence[-1], EXACT, atol=0.05)
    assert (estimate.standard_error[-1] < 0.05).all()


def test_annealed_importance_sampling_is_within_a_twentieth_of_a_nat():
    estimate = evidence.annealed_importance_sampling(
        CASE.model, images(), KEY, num_temperatures=200, num_chains=256, num_leapfrog=4
    )
    np.testing.assert_allclose(estimate.log_evidence, EXACT, atol=0.05)
    assert (estimate.standard_error < 0.04).all() and (estimate.standard_error > 0.001).all()
    # The step sizes were tuned to 0.65 by a pass before, at temperatures that kept falling.
    assert (np.abs(estimate.acceptance - 0.65) < 0.1).all()


def test_reciprocal_importance_sampling_is_within_a_twentieth_of_a_nat():
    estimate = evidence.reciprocal_importance_sampling(CASE.model, images(), KEY, 400)
    np.testing.assert_allclose(estimate.log_evidence, EXACT, atol=0.05)
    assert (estimate.standard_error < 0.02).all()
    assert (np.abs(estimate.acceptance - 0.9) < 0.04).all()


class Parabola(nnx.Module):
    """A decoder x = (z - 1)^2: what it shows has two causes, of which the prior prefers one."""

    latent_dim, data_dim = 1, 1

    def __call__(self, z):
        return (z - 1) ** 2


def test_a_chain_of_reciprocal_importance_sampling_sees_the_peak_it_starts_at():
    encoder = vae.MLPEncoder(1, (), 1, rngs=nnx.Rngs(0))
    model = vae.VAE(encoder, Parabola(), likelihood=vae.Gaussian(std=0.3))
    z = np.linspace(-6, 6, 100_001)
    joint = stats.norm.pdf(z) * stats.norm.pdf(2.2, (z - 1) ** 2, 0.3)
    x = jnp.full((20, 1), 2.2)
    for side, peak in ((z < 1, 1 - np.sqrt(2.2)), (z > 1, 1 + np.sqrt(2.2))):
        estimate = evidence.reciprocal_importance_sampling(
            model, x, KEY, 200, starts=jnp.full((20, 1), peak)
        )
        mass = np.trapezoid(np.where(side, joint, 0), z)
        assert abs(np.mean(estimate.log_evidence) - np.log(mass)) < 0.1
    assert mass < 0.1 * np.trapezoid(joint, z)


def test_starts_that_fit_no_batch_are_refused():
    for starts, words in (
        (np.zeros((1, 2)), r"a position for each example, shape \(3, 2\), got \(1, 2\)"),
        (np.full((3, 2), np.nan), "starts must be finite, got 6 NaN"),
    ):
        with pytest.raises(ValueError, match=words):
            evidence.reciprocal_importance_sampling(CASE.model, images(), KEY, 10, starts=starts)


@pytest.mark.parametrize("name", ["annealed", "reciprocal"])
def test_two_of_them_do_not_look_at_the_encoder(name):
    estimator = getattr(evidence, f"{name}_importance_sampling")
    if name == "annealed":
        estimator = functools.partial(estimator, num_temperatures=3, num_chains=2, num_leapfrog=2)
    other = LinearGaussian(CASE.W, CASE.b, CASE.std, CASE.A + 1, CASE.a - 3, 9 * CASE.var)
    for a, b in zip(*(estimator(case.model, images(), KEY) for case in (CASE, other)), strict=True):
        np.testing.assert_array_equal(a, b)


# Importance sampling, along its samples


@pytest.fixture(scope="module")
def climb():
    """2,000 independent sequences of weights of one image."""
    counts = (1, 2, 8, 64)
    return counts, evidence.importance_sampling(CASE.model, copies(X, 2000), KEY, counts)


def test_at_the_true_posterior_every_number_of_samples_gives_the_evidence():
    estimate = evidence.importance_sampling(TRUE.model, copies(X, 5), KEY)
    assert estimate.log_evidence.shape == (len(evidence.COUNTS), 5)
    np.testing.assert_allclose(estimate.log_evidence, TRUE.evidence(X), atol=1e-4)
    # Weights that differ by rounding alone; a variance of 1e-7 may come out below 0.
    assert np.nan_to_num(estimate.standard_error[1:]).max() < 1e-3


def test_every_number_of_samples_estimates_the_evidence_without_bias(climb):
    for log_evidence in climb[1].log_evidence:
        mean, error = mean_of_weights(log_evidence)
        assert error < 0.1
        assert abs(mean - 1) < 5 * error


def test_its_logarithm_climbs_from_the_elbo(climb):
    means = np.asarray(climb[1].log_evidence, np.float64).mean(axis=1)
    assert abs(means[0] - CASE.bound(X)) < 5 * standard_error(climb[1].log_evidence[0])
    assert (np.diff(means) > 0.02).all() and means[-1] < CASE.evidence(X)


def test_more_samples_go_on_from_the_fewer():
    """One sequence of weights: two estimates with the same key share their beginning."""
    few = evidence.importance_sampling(CASE.model, images(), KEY, (1, 2, 8))
    many = evidence.importance_sampling(CASE.model, images(), KEY, (1, 2, 8, 64))
    for a, b in zip(few, many, strict=True):
        np.testing.assert_allclose(a, b[:3], rtol=1e-6)


def test_its_standard_error_is_the_spread_of_the_estimate():
    """The spread over 500 sequences against the error that each states, far from 0 and from 1."""
    estimate = evidence.importance_sampling(CASE.model, copies(X, 500), KEY, (1, 4000))
    assert np.isnan(estimate.standard_error[0]).all()
    spread = np.std(np.asarray(estimate.log_evidence[1], np.float64), ddof=1)
    stated = np.sqrt(np.mean(np.asarray(estimate.standard_error[1], np.float64) ** 2))
    assert 0.005 < spread < 0.2
    # The spread of 500 numbers is known to 3 %; the weights have heavy tails.
    np.testing.assert_allclose(stated, spread, rtol=0.2)


def test_log_mean_and_its_error_are_those_of_numpy():
    log_values = np.random.default_rng(0).normal(-700, 0.4, size=(200, 3))
    mean, error = evidence.log_mean(jnp.asarray(log_values, jnp.float32))
    values = np.exp(np.asarray(np.asarray(log_values, np.float32), np.float64) + 700)
    np.testing.assert_allclose(mean, np.log(values.mean(axis=0)) - 700, rtol=1e-6)
    expected = values.std(axis=0, ddof=1) / values.mean(axis=0) / np.sqrt(200)
    np.testing.assert_allclose(error, expected, rtol=1e-3)


# Annealing


def test_a_few_temperatures_estimate_the_evidence_without_bias():
    """Too few for precision: that the mean weight is p(x) all the same tests every factor of it."""
    estimate = evidence.annealed_importance_sampling(
        CASE.model,
        copies(X, 4000),
        KEY,
        num_temperatures=6,
        num_chains=3,
        num_leapfrog=3,
    )
    mean, error = mean_of_weights(estimate.log_evidence)
    assert error < 0.05
    assert abs(mean - 1) < 5 * error


def test_the_temperatures_rise_from_0_to_1_most_densely_at_the_ends():
    betas = np.asarray(evidence.temperatures(50))
    assert len(betas) == 51 and betas[0] == 0 and betas[-1] == pytest.approx(1, abs=1e-6)
    steps = np.diff(betas)
    assert (steps > 0).all() and steps[25] > 5 * max(steps[0], steps[-1])


# Posterior samples


def test_a_fresh_half_of_the_chain_meets_the_density_fitted_to_the_other():
    """With ten samples, a density tested on the points it was fitted to would look too good."""
    estimate = evidence.reciprocal_importance_sampling(CASE.model, copies(X, 1500), KEY, 10)
    # Fresh samples of a misfitted q: errors both ways, the log of an inverse mean a little high.
    # With the fitted samples the estimate would be low by half a nat.
    assert -0.15 < np.mean(estimate.log_evidence) - CASE.evidence(X) < 0.5


def test_chains_start_among_draws_of_the_posterior():
    n = 1000
    x = copies(X, n)
    z = np.asarray(evidence.posterior_starts(CASE.model, x, KEY, 10_000), np.float64)
    mean, covariance = CASE.posterior(X)
    assert z.shape == (n, 2)
    # Resampled from the few hundred draws of the prior that fall within the posterior.
    np.testing.assert_allclose(z.mean(axis=0), mean, atol=0.1)
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=0.05)


@pytest.mark.parametrize("num_starts", [200, 20_000])  # one block, and several
def test_the_starts_of_a_bernoullis_chains_are_those_of_the_posterior(num_starts):
    # Copies of one image, each with a start of its own from the same draws: their mean is that of
    # the posterior. The decoder is given weights of some size, so that this is not the prior's.
    rngs = nnx.Rngs(0)
    model = vae.VAE(vae.MLPEncoder(30, 9, 3, rngs=rngs), vae.MLPDecoder(3, 9, 30, rngs=rngs))
    model.decoder.output.kernel = nnx.Param(2 * model.decoder.output.kernel[...])
    image = np.random.default_rng(1).uniform(0.2, 0.8, size=30).astype(np.float32)
    starts = evidence.posterior_starts(model, copies(image, 4000), KEY, num_starts)
    assert starts.shape == (4000, 3)

    z = np.random.default_rng(3).normal(size=(50_000, 3)).astype(np.float32)
    log_likelihood = np.asarray(model.log_likelihood(image, z), np.float64)
    weight = np.exp(log_likelihood - log_likelihood.max())
    weight /= weight.sum()
    mean = weight @ z
    spread = np.sqrt(weight @ (z - mean) ** 2)
    assert np.linalg.norm(mean) > 0.3
    few = num_starts * (weight.sum() ** 2 / (weight**2).sum()) / 50_000  # draws that carry weight
    error = spread * np.sqrt(1 / 4000 + 1 / few)
    assert np.all(np.abs(np.mean(starts, axis=0) - mean) < 4 * error)


@pytest.mark.parametrize("likelihood", [vae.Bernoulli(), vae.Gaussian(0.3)])
def test_pairs_have_the_likelihood_that_each_has_alone(likelihood):
    rngs = nnx.Rngs(0)
    encoder, decoder = vae.MLPEncoder(7, 5, 2, rngs=rngs), vae.MLPDecoder(2, 5, 7, rngs=rngs)
    model = vae.VAE(encoder, decoder, likelihood)
    x, z = jax.random.uniform(KEY, (3, 7)), 3 * jax.random.normal(KEY, (4, 2))
    pairs = evidence.log_likelihood_of_pairs(model, x, z)
    np.testing.assert_allclose(pairs, model.log_likelihood(x[:, None], z), rtol=1e-5)


class Same(nnx.Module):
    """A decoder that shows its latent as it is."""

    latent_dim, data_dim = 1, 1

    def __call__(self, z):
        return z


def test_every_block_of_draws_is_searched_for_a_start():
    model = vae.VAE(vae.MLPEncoder(1, (), 1, rngs=nnx.Rngs(0)), Same(), vae.Gaussian(1e-6))
    x, n = jnp.linspace(-1, 1, 400)[:, None], 40_000
    # So narrow a posterior takes the nearest draw, on average 1 / (2 n p(x)) away.
    away = np.abs(evidence.posterior_starts(model, x, KEY, n) - x)
    expected = 1 / (2 * n * stats.norm.pdf(np.asarray(x, np.float64)))
    assert 0.8 < np.mean(away / expected) < 1.2


class TwoSided(nnx.Module):
    """A decoder of one latent that sees its magnitude, and a little of its sign."""

    latent_dim, data_dim = 1, 1

    def __call__(self, z):
        return jnp.abs(z) + 0.2 * z


def test_a_chain_rarely_starts_in_a_mode_that_holds_little():
    encoder = vae.MLPEncoder(1, (), 1, rngs=nnx.Rngs(0))
    model = vae.VAE(encoder, TwoSided(), vae.Gaussian(0.1))
    starts = evidence.posterior_starts(model, jnp.full((3000, 1), 1.5), KEY, 5000)
    grid = np.linspace(-5, 5, 100_001)
    density = np.exp(-0.5 * ((1.5 - np.abs(grid) - 0.2 * grid) / 0.1) ** 2 - 0.5 * grid**2)
    exact = density[grid > 0].sum() / density.sum()
    assert 0.6 < exact < 0.7
    # About 5 % of 5,000 draws fall within the modes: their share is known to some 3 %.
    np.testing.assert_allclose(np.mean(np.asarray(starts) > 0), exact, atol=0.1)


def test_the_fitted_density_is_the_gaussian_of_the_samples():
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(30, 4, 3)) @ rng.normal(size=(3, 3)) + 2
    z = rng.normal(size=(6, 4, 3)) + 2
    ours = evidence.fitted_gaussian_log_prob(images(samples), images(z))
    for i in range(4):
        fitted = stats.multivariate_normal(samples[:, i].mean(axis=0), np.cov(samples[:, i].T))
        np.testing.assert_allclose(ours[:, i], fitted.logpdf(z[:, i]), rtol=1e-4)


def test_a_chain_that_never_moved_gives_a_number_all_the_same():
    stuck = jnp.ones((20, 2, 3))
    assert np.isfinite(evidence.fitted_gaussian_log_prob(stuck, stuck)).all()


# The gap and its two parts


def best_diagonal(x):
    """The diagonal Gaussian of the highest ELBO: the posterior's mean and its precisions."""
    mean, covariance = CASE.posterior(x)
    return mean, 1 / np.diag(np.linalg.inv(covariance))


def test_the_elbo_at_a_gaussian_is_the_bound_of_a_model_with_that_encoder():
    n, mean, var = 4000, np.array([0.4, -0.1]), np.array([0.2, 0.05])
    other = LinearGaussian(CASE.W, CASE.b, CASE.std, np.zeros((2, 5)), mean, var)
    ours = evidence.elbo_at(
        CASE.model, copies(X, n), copies(mean, n), copies(np.log(var), n), KEY, 50
    )
    assert ours.shape == (n,)
    slack = 5 * standard_error(ours)
    assert slack < 0.05
    assert abs(np.mean(np.asarray(ours, np.float64)) - other.bound(X)) < slack
    # Fifty draws leave a seventh of the spread that one has.
    one = vae.elbo(other.model, copies(X, n), KEY).log_likelihood
    assert np.std(ours) / np.std(one) == pytest.approx(1 / np.sqrt(50), rel=0.1)


def test_ascent_finds_the_best_diagonal_gaussian_of_every_example():
    mean, log_var = evidence.optimal_posterior(CASE.model, images(), KEY)
    assert mean.shape == log_var.shape == (3, 2)
    for i, x in enumerate(XS):
        exact_mean, exact_var = best_diagonal(x)
        # A twentieth of a standard deviation, a tenth of a log-variance.
        np.testing.assert_allclose(mean[i], exact_mean, atol=0.05)
        np.testing.assert_allclose(log_var[i], np.log(exact_var), atol=0.1)


def test_the_gap_is_what_the_family_and_the_shared_network_lose():
    found = evidence.optimal_posterior(CASE.model, images(), KEY)
    best = evidence.elbo_at(CASE.model, images(), *found, jax.random.key(1), 20_000)
    ours = evidence.elbo_at(
        CASE.model, images(), *CASE.model.encode(images()), jax.random.key(2), 20_000
    )
    for i, x in enumerate(XS):
        mean, var = best_diagonal(x)
        optimum = LinearGaussian(CASE.W, CASE.b, CASE.std, np.zeros((2, 5)), mean, var)
        approximation, amortisation = EXACT[i] - best[i], best[i] - ours[i]
        assert approximation == pytest.approx(optimum.gap(x), abs=0.05)
        assert approximation > 0.15
        assert amortisation == pytest.approx(CASE.gap(x) - optimum.gap(x), abs=0.1)
        assert amortisation > 0.2


# Bad input


ESTIMATORS = {
    "importance": evidence.importance_sampling,
    "annealed": evidence.annealed_importance_sampling,
    "reciprocal": evidence.reciprocal_importance_sampling,
    "optimal": evidence.optimal_posterior,
}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(
    ("x", "key", "error", "message"),
    [
        (np.zeros((2, 6), np.uint8), KEY, TypeError, "x must hold floating-point"),
        (np.zeros(6, np.float32), KEY, ValueError, r"shape \(batch, data_dim\)"),
        (np.zeros((2, 5), np.float32), KEY, ValueError, "last dimension of 6"),
        (np.full((2, 6), 2, np.float32), KEY, ValueError, r"x must lie in \[0, 1\]"),
        (np.zeros((2, 6), np.float32), 0, TypeError, "key must be one JAX random key"),
    ],
)
def test_what_does_not_fit_is_refused(name, x, key, error, message):
    with pytest.raises(error, match=message):
        ESTIMATORS[name](small_vae(), x, key)


def test_a_model_without_a_prior_has_no_evidence():
    model = small_vae()
    plain = vae.Autoencoder(model.encoder, model.decoder)
    with pytest.raises(TypeError, match="needs a model with a prior"):
        evidence.importance_sampling(plain, jnp.zeros((1, 6)), KEY)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("importance", {"num_samples": ()}, "num_samples must be increasing"),
        ("importance", {"num_samples": (5, 5)}, "num_samples must be increasing"),
        ("importance", {"num_samples": (0, 5)}, "num_samples must be at least 1"),
        ("annealed", {"num_temperatures": 0}, "num_temperatures must be at least 1"),
        ("annealed", {"num_chains": 0}, "num_chains must be at least 1"),
        ("annealed", {"step_size": 0.0}, "step_size must be finite and above 0"),
        ("reciprocal", {"num_samples": 2}, "num_samples must exceed the 2 latents"),
        ("reciprocal", {"num_warm_up": 0}, "num_warm_up must be at least 1"),
        ("optimal", {"num_steps": 0}, "num_steps must be at least 1"),
        ("optimal", {"learning_rate": -1.0}, "learning_rate must be finite and above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        ESTIMATORS[name](small_vae(), jnp.zeros((2, 6)), KEY, **options)
