"""The learned variance, the plain autoencoder and free bits, against sums done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import stats
from unit_helpers import DATA_DIM, LATENT_DIM, params_of, small_vae, stripes

import vae

KEY = jax.random.key(0)
X = jnp.asarray(stripes(8) / 255, jnp.float32)


def small_autoencoder(seed=0, likelihood="bernoulli"):
    rngs = nnx.Rngs(seed)
    encoder = vae.MLPEncoder(DATA_DIM, 8, LATENT_DIM, rngs=rngs)
    return vae.Autoencoder(encoder, vae.MLPDecoder(LATENT_DIM, 8, DATA_DIM, rngs=rngs), likelihood)


# LearnedGaussian


@pytest.mark.parametrize("dim", [1, DATA_DIM])
def test_the_learned_variance_is_scipys(dim):
    likelihood = vae.LearnedGaussian(dim, std=0.4)
    log_var = np.log(0.16) + np.linspace(-1, 1, dim)
    likelihood.log_var[...] = jnp.asarray(log_var, jnp.float32)
    mean = jax.random.normal(KEY, X.shape)
    ours = likelihood.log_prob(X, mean)
    theirs = stats.norm.logpdf(X, mean, np.broadcast_to(np.exp(log_var / 2), X.shape)).sum(axis=-1)
    assert ours.shape == (8,)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    np.testing.assert_array_equal(likelihood.mean(mean), mean)


def test_the_variance_starts_where_it_is_told():
    np.testing.assert_allclose(vae.LearnedGaussian(3, std=0.2).log_var[...], 2 * np.log(0.2))
    np.testing.assert_array_equal(vae.LearnedGaussian().log_var[...], [0.0])
    assert not vae.LearnedGaussian(std=0.2).log_var[...].weak_type  # or `fit` compiles twice


@pytest.mark.parametrize("dim", [1, DATA_DIM])
def test_the_best_variance_is_the_mean_squared_error(dim):
    likelihood, mean = vae.LearnedGaussian(dim), jnp.full(X.shape, 0.3)
    squares = np.square(np.float64(X) - 0.3)
    best = squares.mean(axis=0) if dim > 1 else squares.mean(keepdims=True).reshape(1)
    likelihood.log_var[...] = jnp.asarray(np.log(best), jnp.float32)
    slope = nnx.grad(lambda likelihood: likelihood.log_prob(X, mean).mean())(likelihood)
    np.testing.assert_allclose(slope.log_var[...], 0, atol=1e-4)
    at_best = likelihood.log_prob(X, mean).mean()
    for nudge in (-0.3, 0.3):
        likelihood.log_var[...] = jnp.asarray(np.log(best) + nudge, jnp.float32)
        assert likelihood.log_prob(X, mean).mean() < at_best


def test_the_variance_is_trained_with_the_weights_and_saved_with_them(tmp_path):
    model = small_vae(likelihood=vae.LearnedGaussian())
    settings = {"key": KEY, "batch_size": 4, "optimizer": optax.adam(1e-2), "progress": False}
    history = vae.fit(model, X, epochs=30, checkpoint=tmp_path / "run.npz", **settings)
    assert model.likelihood.log_var[...][0] < -0.1
    assert history.bound[-1] > history.bound[0]
    again = small_vae(seed=3, likelihood=vae.LearnedGaussian())
    vae.fit(again, X, epochs=30, checkpoint=tmp_path / "run.npz", **settings)
    np.testing.assert_array_equal(model.likelihood.log_var[...], again.likelihood.log_var[...])


def test_two_models_do_not_share_a_variance():
    a, b = (small_vae(likelihood=vae.LearnedGaussian()) for _ in range(2))
    a.likelihood.log_var[...] = jnp.array([5.0])
    assert b.likelihood.log_var[...][0] == 0


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: vae.LearnedGaussian(0), ValueError, "dim must be at least 1"),
        (lambda: vae.LearnedGaussian(1, std=0.0), ValueError, "std must be finite and above 0"),
        (lambda: vae.LearnedGaussian(5).log_prob(X, X), ValueError, "last dimension of 5"),
        (lambda: vae.LearnedGaussian().log_prob(X.at[0, 0].set(jnp.nan), X), ValueError, "NaN"),
    ],
)
def test_wrong_variances_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# Autoencoder


def test_the_autoencoder_is_its_two_networks():
    model = small_autoencoder()
    code = model.encode(X)
    np.testing.assert_array_equal(code, model.encoder(X)[0])
    logits = model.decoder(code)
    np.testing.assert_array_equal(model.decode(code), jax.nn.sigmoid(logits))
    np.testing.assert_array_equal(model.reconstruct(X), jax.nn.sigmoid(logits))
    y = jax.nn.sigmoid(np.float64(logits))
    by_hand = (X * np.log(y) + (1 - X) * np.log(1 - y)).sum(axis=-1)
    np.testing.assert_allclose(vae.reconstruction(model, X), by_hand, rtol=1e-5)
    np.testing.assert_array_equal(vae.reconstruction(model, X, KEY), vae.reconstruction(model, X))


def test_the_autoencoder_trains_and_leaves_the_variance_head_alone():
    model = small_autoencoder()
    before = params_of(model)
    history = vae.fit(
        model,
        stripes(64),
        key=KEY,
        epochs=20,
        batch_size=8,
        optimizer=optax.adam(1e-2),
        objective=vae.reconstruction,
        progress=False,
    )
    assert history.objective[-1] > history.objective[0] + 0.5
    assert np.isnan(history.bound).all() and np.isnan(history.kl).all()
    moved = {name for name, value in params_of(model).items() if not np.all(value == before[name])}
    assert {name for name in before if "log_var" not in name} == moved


def test_an_autoencoder_has_no_bound():
    model = small_autoencoder()
    options = {"key": KEY, "epochs": 1, "batch_size": 4, "optimizer": optax.sgd(0.1)}
    with pytest.raises(TypeError, match=r"needs a model with a prior.*Autoencoder has none"):
        vae.evaluate(model, X, key=KEY)
    with pytest.raises(TypeError, match="needs a model with a prior"):
        vae.fit(model, X, objective=vae.reconstruction, validation=X, **options)


def test_an_autoencoder_wants_fitting_networks_and_a_likelihood():
    encoder = vae.MLPEncoder(DATA_DIM, 8, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="the encoder has latent_dim 2, the decoder has 3"):
        vae.Autoencoder(encoder, vae.MLPDecoder(3, 8, DATA_DIM, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="likelihood must be"):
        small_autoencoder(likelihood="gauss")


# Free bits


def by_hand(model, x, beta, free_bits):
    """(mean objective, raw KL of each example), with NumPy loops over latents."""
    mean, log_var = (np.float64(a) for a in model.encode(x))
    z = vae.reparameterize(KEY, *model.encode(x))
    kl = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var)
    charged = sum(max(free_bits, kl[:, j].mean()) for j in range(kl.shape[1]))
    log_likelihood = np.float64(model.log_likelihood(x, z)).mean()
    return log_likelihood - beta * charged, kl.sum(axis=1)


@pytest.mark.parametrize("free_bits", [0.0, 0.05, 0.2, 5.0])
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_free_bits_charge_the_larger_of_the_floor_and_the_mean(beta, free_bits):
    model = small_vae()
    terms = vae.beta_objective(model, X, KEY, beta, free_bits)
    objective, kl = by_hand(model, X, beta, free_bits)
    assert all(term.shape == (8,) for term in terms)
    np.testing.assert_allclose(terms.objective.mean(), objective, rtol=1e-5)
    np.testing.assert_allclose(terms.kl, kl, rtol=1e-4, atol=1e-6)  # raw, whatever is free


def test_one_latent_below_the_floor_and_one_above_it():
    model = small_vae()
    model.encoder.mean.bias[...] = jnp.array([2.0, 0.0])  # the first pays, the second is free
    kl = vae.gaussian_kl(*(a[..., None] for a in model.encode(X))).mean(axis=0)
    floor = float(kl[0] + kl[1]) / 2
    slopes = nnx.grad(
        lambda model: (
            vae.beta_objective(model, X, KEY, 1.0, floor).objective.mean()
            - vae.beta_objective(model, X, KEY, 0.0).objective.mean()
        )
    )(model).encoder
    full = nnx.grad(lambda model: -vae.elbo(model, X, KEY).kl.mean())(model).encoder
    np.testing.assert_allclose(slopes.mean.bias[...][0], full.mean.bias[...][0], rtol=1e-4)
    np.testing.assert_allclose(slopes.mean.bias[...][1], 0, atol=1e-6)
    np.testing.assert_allclose(slopes.log_var.bias[...][1], 0, atol=1e-6)
    assert abs(full.log_var.bias[...][1]) > 1e-3 or abs(full.mean.bias[...][1]) > 1e-3


def test_free_bits_are_a_number_of_at_least_zero():
    for wrong in (-0.1, float("nan"), jnp.zeros(2)):
        with pytest.raises((ValueError, TypeError), match="free_bits must be"):
            vae.beta_objective(small_vae(), X, KEY, 1.0, wrong)
