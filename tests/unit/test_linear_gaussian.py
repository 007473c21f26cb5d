"""Bounds and estimators on a model whose evidence and posterior are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from unit_helpers import (
    OFFSET,
    ORTHOGONAL,
    LinearGaussian,
    X,
    at_posterior,
    copies,
    standard_error,
)

import vae
from vae.evaluation import bounds
from vae.objectives import log_importance_weights

KEY = jax.random.key(1)
EXACT = at_posterior(ORTHOGONAL, OFFSET, 0.8)
# A q that is visibly wrong: too narrow in one latent, too wide in the other, and off.
SHIFT, STRETCH = np.array([0.3, -0.2]), np.array([0.5, 2.0])
OFF = LinearGaussian(ORTHOGONAL, OFFSET, 0.8, 0.7 * EXACT.A, EXACT.a + SHIFT, EXACT.var * STRETCH)
# Log-values of size 10 from sums of a dozen float32 terms.
ROUNDING = 2e-5


def test_the_closed_forms_agree_with_each_other():
    """Evidence = bound + gap, from three formulas that share no step."""
    for case in (EXACT, OFF):
        np.testing.assert_allclose(case.bound(X) + case.gap(X), case.evidence(X), rtol=1e-12)
    np.testing.assert_allclose(EXACT.gap(X), 0, atol=1e-12)
    assert OFF.gap(X) > 0.3


def test_at_the_true_posterior_every_weight_is_the_evidence():
    weights = log_importance_weights(EXACT.model, copies(X, 50), KEY, 20)
    assert weights.shape == (20, 50)
    np.testing.assert_allclose(weights, EXACT.evidence(X), atol=ROUNDING)


@pytest.mark.parametrize("num_samples", [1, 2, 7, 64])
def test_at_the_true_posterior_the_importance_weighted_bound_is_the_evidence(num_samples):
    xs = np.stack([X, -X, 2 * X])
    bound = vae.iwae_bound(EXACT.model, jnp.asarray(xs, jnp.float32), KEY, num_samples)
    # Twice X is six standard deviations out: terms of size 50, hence the larger tolerance.
    np.testing.assert_allclose(bound, [EXACT.evidence(x) for x in xs], atol=1e-4)


def test_the_estimator_needs_no_more_than_one_sample_at_the_true_posterior():
    estimate = vae.log_marginal_likelihood(EXACT.model, copies(X, 3), KEY, 1)
    np.testing.assert_allclose(estimate, EXACT.evidence(X), atol=ROUNDING)


@pytest.mark.parametrize("case", [EXACT, OFF], ids=["posterior", "off"])
def test_the_elbo_averages_to_its_closed_form(case):
    n = 20_000
    bound, log_likelihood, kl = vae.elbo(case.model, copies(X, n), KEY)
    assert bound.shape == log_likelihood.shape == kl.shape == (n,)
    exact_likelihood, exact_kl = case.terms(X)
    # Five standard errors of the mean over n draws.
    slack = 5 * standard_error(log_likelihood)
    assert slack < 0.1
    np.testing.assert_allclose(np.mean(log_likelihood), exact_likelihood, atol=slack)
    np.testing.assert_allclose(kl, exact_kl, rtol=1e-5)
    np.testing.assert_allclose(np.mean(bound), case.evidence(X) - case.gap(X), atol=slack)
    np.testing.assert_array_equal(bound, log_likelihood - kl)


def test_gradient_of_the_elbo_averages_to_the_closed_form():
    """d E[bound] / d b = (x - b - W m) / std^2; through encoder and sample, by differences."""
    n = 20_000

    def mean_bound(shift):
        """The bound when every latent mean is moved by `shift`: by mean = a of the encoder."""
        case = LinearGaussian(OFF.W, OFF.b, OFF.std, OFF.A, OFF.a + shift, OFF.var)
        return case.bound(X)

    gradient = nnx.grad(lambda m: vae.elbo(m, copies(X, n), KEY).bound.mean())(OFF.model)
    mean = OFF.A @ X + OFF.a
    by_offset = (X - OFF.b - OFF.W @ mean) / OFF.std**2
    # One draw's gradient by b has std |W| sqrt(var) / std^2 < 2 per pixel: 5 * 2 / sqrt(n) = 0.07.
    np.testing.assert_allclose(gradient.decoder.output.bias[...], by_offset, atol=0.07)
    h = 1e-5
    by_shift = [(mean_bound(h * e) - mean_bound(-h * e)) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(gradient.encoder.mean.bias[...], by_shift, atol=0.1)
    # d/dv of -var |w|^2 / (2 std^2) - (var - log var) / 2 at log var = v.
    by_log_var = 0.5 * (1 - OFF.var - OFF.var * np.sum(OFF.W**2, axis=0) / OFF.std**2)
    np.testing.assert_allclose(gradient.encoder.log_var.bias[...], by_log_var, atol=0.1)


def test_weights_average_to_the_evidence_itself():
    weights = np.exp(
        np.asarray(log_importance_weights(OFF.model, copies(X, 1), KEY, 100_000), np.float64)
    )[:, 0]
    # Unbiased at any q; here the weights have a finite variance, so five standard errors hold.
    assert 5 * standard_error(weights) < 0.1 * np.exp(OFF.evidence(X))
    np.testing.assert_allclose(
        weights.mean(), np.exp(OFF.evidence(X)), atol=5 * standard_error(weights)
    )


def test_the_importance_weighted_bound_is_the_log_of_the_mean_of_its_own_weights():
    xs = jnp.asarray(np.stack([X, 0.5 * X, -X]), jnp.float32)
    weights = np.asarray(log_importance_weights(OFF.model, xs, KEY, 5), np.float64)
    expected = np.log(np.mean(np.exp(weights), axis=0))
    np.testing.assert_allclose(vae.iwae_bound(OFF.model, xs, KEY, 5), expected, rtol=1e-5)


def test_log_weights_are_the_three_log_densities_of_scipy():
    weights = np.asarray(log_importance_weights(OFF.model, copies(X, 2), KEY, 3))
    mean, std = OFF.A @ X + OFF.a, np.sqrt(OFF.var)
    z = vae.reparameterize(
        KEY,
        jnp.broadcast_to(jnp.asarray(mean, jnp.float32), (3, 2, 2)),
        jnp.asarray(np.log(OFF.var), jnp.float32),
    )
    z = np.asarray(z, np.float64)
    expected = (
        stats.norm(z @ OFF.W.T + OFF.b, OFF.std).logpdf(X).sum(axis=-1)
        + stats.norm.logpdf(z).sum(axis=-1)
        - stats.norm(mean, std).logpdf(z).sum(axis=-1)
    )
    np.testing.assert_allclose(weights, expected, atol=1e-4)


def test_the_importance_weighted_bound_grows_with_the_samples_from_elbo_to_evidence():
    n = 2000
    values = {k: vae.iwae_bound(OFF.model, copies(X, n), KEY, k) for k in (1, 4, 32)}
    means = [OFF.bound(X), *(float(np.mean(v)) for v in values.values()), OFF.evidence(X)]
    errors = [0, *(standard_error(v) for v in values.values()), 0]
    # At k = 1 it is the ELBO; from there each mean is larger by more than the noise of both.
    assert abs(means[1] - means[0]) < 5 * errors[1]
    for below, above, e1, e2 in zip(
        means[1:-2], means[2:-1], errors[1:-2], errors[2:-1], strict=True
    ):
        assert below + 5 * np.hypot(e1, e2) < above
    assert means[-2] < means[-1] + 5 * errors[-2]


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_estimate_of_the_evidence_is_within_a_twentieth_of_a_nat(scale):
    xs = np.stack([X, scale * X, -X])
    estimate = vae.log_marginal_likelihood(OFF.model, jnp.asarray(xs, jnp.float32), KEY, 20_000)
    assert estimate.shape == (3,)
    np.testing.assert_allclose(estimate, [OFF.evidence(x) for x in xs], atol=0.05)


def test_chunks_do_not_change_the_distribution_of_the_estimate(monkeypatch):
    """Ten draws are worth ten, in one chunk or in chunks of three: fresh draws in each."""
    n, k = 4000, 10
    x = copies(X, n)
    whole = np.asarray(vae.log_marginal_likelihood(OFF.model, x, KEY, k))
    monkeypatch.setattr(bounds, "_FLOATS_AT_ONCE", 3 * x.size)
    parts = np.asarray(vae.log_marginal_likelihood(OFF.model, x, KEY, k))
    assert not np.array_equal(whole, parts)  # else the chunks were not used
    slack = 5 * np.hypot(standard_error(whole), standard_error(parts))
    assert abs(whole.mean() - parts.mean()) < slack
    # Draws that repeat in every chunk would be worth three: the test can tell the difference.
    three = np.asarray(vae.iwae_bound(OFF.model, x, KEY, 3))
    assert whole.mean() - three.mean() > 2 * slack


@pytest.mark.parametrize("floats", [1, 11 * 5, 2**25])
def test_at_the_true_posterior_no_chunk_size_changes_the_estimate(monkeypatch, floats):
    monkeypatch.setattr(bounds, "_FLOATS_AT_ONCE", floats)
    estimate = vae.log_marginal_likelihood(EXACT.model, copies(X, 1), KEY, 25)
    np.testing.assert_allclose(estimate, EXACT.evidence(X), atol=ROUNDING)


def test_generated_and_reconstructed_images_have_the_moments_of_the_model():
    n = 20_000
    images = np.asarray(OFF.model.generate(KEY, n), np.float64)
    # generate returns means of p(x|z): N(b, W W^T) over z. Entries have variance <= 2.
    np.testing.assert_allclose(images.mean(axis=0), OFF.b, atol=5 * np.sqrt(2 / n))
    np.testing.assert_allclose(np.cov(images.T), OFF.W @ OFF.W.T, atol=5 * 2 * np.sqrt(2 / n))
    images = np.asarray(OFF.model.reconstruct(copies(X, n), KEY), np.float64)
    mean = OFF.b + OFF.W @ (OFF.A @ X + OFF.a)
    np.testing.assert_allclose(images.mean(axis=0), mean, atol=5 * np.sqrt(2 / n))
    covariance = (OFF.W * OFF.var) @ OFF.W.T
    np.testing.assert_allclose(np.cov(images.T), covariance, atol=5 * 2 * np.sqrt(2 / n))


# Any linear-Gaussian model and any q: three pixels, two latents.
numbers = st.floats(-1.5, 1.5, width=32)
cases = st.builds(
    LinearGaussian,
    W=hnp.arrays(np.float64, (3, 2), elements=numbers),
    b=hnp.arrays(np.float64, 3, elements=numbers),
    std=st.floats(0.5, 2.0),
    A=hnp.arrays(np.float64, (2, 3), elements=numbers),
    a=hnp.arrays(np.float64, 2, elements=numbers),
    var=hnp.arrays(np.float64, 2, elements=st.floats(0.1, 2.0)),
)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(cases, hnp.arrays(np.float64, 3, elements=numbers), st.integers(0, 2**31 - 1))
def test_elbo_below_importance_weighted_bound_below_evidence(case, x, seed):
    n, evidence, bound = 2000, case.evidence(x), case.bound(x)
    xs, keys = copies(x, n), jax.random.split(jax.random.key(seed), 3)
    one = np.asarray(vae.elbo(case.model, xs, keys[0]).bound, np.float64)
    few = np.asarray(vae.iwae_bound(case.model, xs, keys[1], 2), np.float64)
    many = np.asarray(vae.iwae_bound(case.model, xs, keys[2], 20), np.float64)
    # Means of n independent draws: six standard errors, as some sixty comparisons are made, and
    # the rounding of log-values that reach a few hundred where q is far off.
    error = {id(v): 6 * standard_error(v) + 1e-5 * abs(v).max() + 1e-5 for v in (one, few, many)}
    assert bound <= evidence + 1e-9
    assert abs(one.mean() - bound) <= error[id(one)]
    assert bound <= few.mean() + error[id(few)]
    assert few.mean() <= many.mean() + error[id(few)] + error[id(many)]
    assert many.mean() <= evidence + error[id(many)]
    assert case.gap(x) >= -1e-9
