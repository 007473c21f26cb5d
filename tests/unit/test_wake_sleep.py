"""Wake-sleep against its two phases written out, and against a model whose posterior is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import stats
from unit_helpers import OFFSET, ORTHOGONAL, LinearGaussian, at_posterior, small_vae, stripes

import vae
from vae.baselines import wake_sleep

KEY = jax.random.key(3)
X = jnp.asarray(stripes(16) / 255, jnp.float32)


def gradients(objective, model):
    """The gradient of the mean objective, split into that of the encoder and of the decoder."""
    grads = nnx.grad(lambda model: objective(model).mean())(model)
    return [jax.tree.leaves(nnx.state(part)) for part in (grads.encoder, grads.decoder)]


def test_each_network_gets_the_gradient_of_its_own_phase():
    model = small_vae()
    encoder, decoder = gradients(lambda m: wake_sleep(m, X, KEY).objective, model)

    wake_key, latent_key, dream_key = jax.random.split(KEY, 3)
    mean, log_var = model.encode(X)
    z = mean + jnp.exp(log_var / 2) * jax.random.normal(wake_key, mean.shape)
    wake = gradients(lambda m: m.log_likelihood(X, z), model)

    dreamed_z = jax.random.normal(latent_key, mean.shape)
    dreamed_x = jax.random.bernoulli(dream_key, model.decode(dreamed_z)).astype(jnp.float32)

    def recognised(m):
        mean, log_var = m.encode(dreamed_x)
        square = (dreamed_z - mean) ** 2 * jnp.exp(-log_var)
        return -0.5 * (square + log_var + np.log(2 * np.pi)).sum(axis=-1)

    sleep = gradients(recognised, model)
    for ours, theirs in zip(encoder + decoder, sleep[0] + wake[1], strict=True):
        assert np.abs(theirs).max() > 1e-4
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-6)


def test_the_other_two_terms_are_those_of_the_bound():
    model = small_vae(seed=1)
    keys = jax.random.split(KEY, 400)
    ours = jax.vmap(lambda key: wake_sleep(model, X, key))(keys)
    bound = (ours.log_likelihood - ours.kl).mean()
    reference = np.asarray(jax.vmap(lambda key: vae.elbo(model, X, key).bound)(keys))
    error = reference.mean(axis=1).std() / 20
    assert abs(bound - reference.mean()) < 6 * error
    np.testing.assert_allclose(ours.kl[0], vae.gaussian_kl(*model.encode(X)), rtol=1e-5)
    assert all(term.shape == (400, 16) for term in ours)


def sleep_slope(case: LinearGaussian, n=200_000):
    """How the sleep phase moves the encoder of a linear-Gaussian model: (means, their errors)."""
    graphdef, state = nnx.split(case.model)
    x = jnp.zeros((n // 100, len(case.b)))

    @jax.jit
    def of_one(key):
        def objective(state):
            return wake_sleep(nnx.merge(graphdef, state), x, key).objective.mean()

        encoder = jax.tree.leaves(jax.grad(objective)(state)["encoder"])
        return jnp.concatenate([leaf.ravel() for leaf in encoder])

    slopes = np.array([of_one(key) for key in jax.random.split(KEY, 100)])
    return slopes.mean(axis=0), slopes.std(axis=0) / 10


def test_the_sleep_phase_rests_at_the_true_posterior_and_nowhere_near_it():
    exact = at_posterior(ORTHOGONAL, OFFSET, 0.8)
    slope, error = sleep_slope(exact)
    assert np.all(np.abs(slope) < 5 * error + 1e-6)
    wider = LinearGaussian(exact.W, exact.b, exact.std, exact.A, exact.a, 1.2 * exact.var)
    slope, error = sleep_slope(wider)
    assert np.any(np.abs(slope) > 10 * error)


def test_fit_trains_with_it_and_reports_the_bound():
    model = small_vae()
    history = vae.fit(
        model,
        stripes(200),
        key=KEY,
        epochs=60,
        batch_size=20,
        optimizer=optax.adam(1e-2),
        objective=wake_sleep,
        progress=False,
    )
    np.testing.assert_allclose(history.bound, history.log_likelihood - history.kl)
    start = float(vae.elbo(small_vae(), X, KEY).bound.mean())
    assert float(vae.elbo(model, X, KEY).bound.mean()) > start + 0.5
    assert np.isfinite(history.objective).all()


def test_what_is_no_batch_of_the_model_is_refused():
    with pytest.raises(ValueError, match=r"x must have shape \(batch, data_dim\)"):
        wake_sleep(small_vae(), X[0], KEY)
    with pytest.raises(ValueError, match="last dimension"):
        wake_sleep(small_vae(), X[:, :3], KEY)


# What the likelihoods dream


N = 40_000


@pytest.mark.parametrize(
    ("likelihood", "parameters", "law"),
    [
        (vae.Gaussian(0.3), [0.2, -1.0], stats.norm([0.2, -1.0], 0.3)),
        (vae.LearnedGaussian(1, 0.7), [0.2, -1.0], stats.norm([0.2, -1.0], 0.7)),
        (
            vae.PredictedGaussian(),
            ([0.2, 0.9], 2 * np.log([0.1, 2.0])),
            stats.norm([0.2, 0.9], [0.1, 2.0]),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_dream_has_the_law_of_the_likelihood(likelihood, parameters, law):
    parameters = jax.tree.map(
        lambda a: jnp.broadcast_to(jnp.asarray(a, jnp.float32), (N, 2)),
        tuple(map(np.array, parameters)) if isinstance(parameters, tuple) else np.array(parameters),
    )
    x = np.asarray(likelihood.sample(KEY, parameters), np.float64)
    assert x.shape == (N, 2)
    for column, mean, std in zip(x.T, law.mean(), law.std(), strict=True):
        assert stats.kstest(column, stats.norm(mean, std).cdf).pvalue > 1e-4
    assert abs(np.corrcoef(x.T)[0, 1]) < 5 / np.sqrt(N)
    mean_log_prob = np.mean(
        np.asarray(likelihood.log_prob(jnp.asarray(x, jnp.float32), parameters))
    )
    assert mean_log_prob == pytest.approx(-law.entropy().sum(), abs=0.05)


def test_a_bernoulli_dream_is_black_and_white():
    logits = jnp.broadcast_to(jnp.array([-2.0, 0.0, 3.0]), (N, 3))
    x = np.asarray(vae.Bernoulli().sample(KEY, logits))
    assert set(np.unique(x)) == {0.0, 1.0} and x.dtype == np.float32
    expected = 1 / (1 + np.exp([2.0, 0.0, -3.0]))
    assert np.all(np.abs(x.mean(axis=0) - expected) < 5 * x.std(axis=0) / np.sqrt(N))


def test_the_gaussian_decoder_gives_means_inside_the_interval_and_variances():
    decoder = vae.GaussianMLPDecoder(2, 8, 5, rngs=nnx.Rngs(0))
    z = 30 * jax.random.normal(KEY, (7, 2))
    mean, log_var = decoder(z)
    assert mean.shape == log_var.shape == (7, 5)
    assert mean.min() >= 0 and mean.max() <= 1 and log_var.min() < 0 < log_var.max()
    model = vae.VAE(vae.MLPEncoder(5, 8, 2, rngs=nnx.Rngs(1)), decoder, vae.PredictedGaussian())
    x = jax.random.uniform(KEY, (7, 5))
    expected = stats.norm.logpdf(x, mean, np.exp(np.asarray(log_var) / 2)).sum(axis=1)
    np.testing.assert_allclose(model.log_likelihood(x, z), expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(model.decode(z), mean)
    with pytest.raises(ValueError, match="finite"):
        model.log_likelihood(x.at[0, 0].set(jnp.nan), z)
    with pytest.raises(ValueError, match="last dimension"):
        decoder(z[:, :1])


def test_binarized_draws_black_and_white_images_of_the_intensities():
    seen = []

    def objective(model, x, key, weight=1.0):
        seen.append((x, key))
        return weight * x.mean(axis=1)

    on_binary = vae.binarized(objective)
    x = jnp.full((500, 40), 0.3)
    first, second = (on_binary(None, x, key, weight=2.0) for key in jax.random.split(KEY))
    assert set(np.unique(seen[0][0])) == {0.0, 1.0} and seen[0][0].dtype == x.dtype
    assert first.mean() == pytest.approx(0.6, abs=5 * 2 * np.sqrt(0.21 / x.size))
    assert np.any(np.asarray(first != second))
    # The objective's own key is not the one that drew the images.
    assert not np.array_equal(seen[0][0], jax.random.bernoulli(seen[0][1], x).astype(x.dtype))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        on_binary(None, 4 * x, KEY)
