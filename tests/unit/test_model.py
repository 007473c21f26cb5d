"""vae.VAE, its networks and its likelihoods: shapes, and what they compute, by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats
from unit_helpers import DATA_DIM, LATENT_DIM, params_of, small_vae, stripes

import vae

KEY = jax.random.key(2)


def dense(layer, h):
    return h @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...], np.float64)


def jittered(model, seed=0):
    """The model with biases that are not zero, so that leaving one out shows."""
    rng = np.random.default_rng(seed)
    state = jax.tree.map(
        lambda p: p + rng.normal(scale=0.3, size=p.shape).astype(np.float32), nnx.state(model)
    )
    nnx.update(model, state)
    return model


@pytest.mark.parametrize("hidden_dims", [(), 8, (8, 5)])
def test_encoder_and_decoder_are_the_affine_maps_and_tanh_of_the_paper(hidden_dims):
    model = jittered(small_vae(hidden_dims=hidden_dims))
    x = np.random.default_rng(0).uniform(size=(4, DATA_DIM)).astype(np.float32)

    def through(hidden, h):
        for layer in hidden.layers:
            h = dense(layer, h) if isinstance(layer, nnx.Linear) else np.tanh(h)
        return h

    encoder, decoder = model.encoder, model.decoder
    h = through(encoder.hidden, np.float64(x))
    mean, log_var = model.encode(x)
    assert mean.shape == log_var.shape == (4, LATENT_DIM)
    np.testing.assert_allclose(mean, dense(encoder.mean, h), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_var, dense(encoder.log_var, h), rtol=1e-5, atol=1e-5)
    logits = dense(decoder.output, through(decoder.hidden, np.float64(mean)))
    np.testing.assert_allclose(model.decoder(mean), logits, rtol=1e-5, atol=1e-5)
    # Bernoulli: the mean image is the sigmoid of the logits.
    np.testing.assert_allclose(model.decode(mean), 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_layers_have_the_widths_and_the_activation_asked_for():
    encoder = vae.MLPEncoder(7, (5, 4), 3, rngs=nnx.Rngs(0), activation=jax.nn.relu)
    linear = [layer for layer in encoder.hidden.layers if isinstance(layer, nnx.Linear)]
    assert [layer.kernel.shape for layer in linear] == [(7, 5), (5, 4)]
    assert encoder.mean.kernel.shape == encoder.log_var.kernel.shape == (4, 3)
    h = np.asarray(encoder.hidden(jax.random.normal(KEY, (50, 7))))
    assert h.min() == 0 and h.max() > 1  # relu's range, not tanh's


def test_initialisers_reach_every_layer():
    init = {
        "kernel_init": nnx.initializers.constant(0.25),
        "bias_init": nnx.initializers.constant(-1.5),
    }
    for network in (
        vae.MLPEncoder(4, 3, 2, rngs=nnx.Rngs(0), **init),
        vae.MLPDecoder(2, 3, 4, rngs=nnx.Rngs(0), **init),
    ):
        for name, value in params_of(network).items():
            assert (value == (0.25 if "kernel" in name else -1.5)).all(), name


def test_everything_is_batched_over_leading_axes():
    model, x = small_vae(), jax.random.uniform(KEY, (3, 4, DATA_DIM))
    mean, log_var = model.encode(x)
    assert mean.shape == log_var.shape == (3, 4, LATENT_DIM)
    assert model.decode(mean).shape == x.shape
    assert model.reconstruct(x, KEY).shape == x.shape
    assert model.log_likelihood(x, mean).shape == model.log_prior(mean).shape == (3, 4)
    np.testing.assert_allclose(model.decode(mean)[1, 2], model.decode(mean[1, 2]), rtol=1e-5)


def test_the_prior_is_standard_normal():
    z = np.random.default_rng(0).normal(size=(5, LATENT_DIM)).astype(np.float32)
    expected = stats.norm.logpdf(np.float64(z)).sum(axis=-1)
    np.testing.assert_allclose(small_vae().log_prior(z), expected, rtol=1e-6)


def test_the_likelihoods_are_scipys():
    model, z = jittered(small_vae()), jax.random.normal(KEY, (5, LATENT_DIM))
    x = np.random.default_rng(0).integers(2, size=(5, DATA_DIM)).astype(np.float32)
    output = np.asarray(model.decoder(z), np.float64)
    expected = stats.bernoulli(1 / (1 + np.exp(-output))).logpmf(x).sum(axis=-1)
    np.testing.assert_allclose(model.log_likelihood(x, z), expected, rtol=1e-5)
    gaussian = vae.VAE(model.encoder, model.decoder, vae.Gaussian(0.3))
    expected = stats.norm(output, 0.3).logpdf(x).sum(axis=-1)
    np.testing.assert_allclose(gaussian.log_likelihood(x, z), expected, rtol=1e-5)
    np.testing.assert_array_equal(gaussian.decode(z), model.decoder(z))


@pytest.mark.parametrize("likelihood", ["bernoulli", vae.Bernoulli()])
def test_the_likelihood_can_be_named_or_given(likelihood):
    assert small_vae(likelihood=likelihood).likelihood == vae.Bernoulli()


def test_generated_images_depend_on_the_key_and_on_nothing_else():
    model = jittered(small_vae())
    images = [np.asarray(model.generate(jax.random.key(s), 7)) for s in (0, 0, 1)]
    assert images[0].shape == (7, DATA_DIM)
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any(axis=1).all()  # every image is another
    assert len(np.unique(images[0], axis=0)) == 7
    assert images[0].min() > 0 and images[0].max() < 1


def test_reconstructions_depend_on_the_key_and_each_example_has_its_own_noise():
    model, x = jittered(small_vae()), jnp.full((5, DATA_DIM), 0.5)
    images = [np.asarray(model.reconstruct(x, jax.random.key(s))) for s in (0, 0, 1)]
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any(axis=1).all()
    assert len(np.unique(images[0], axis=0)) == 5


@pytest.mark.parametrize("function", ["elbo", "iwae_bound"])
def test_bounds_and_their_gradients_are_the_same_when_compiled(function):
    model, x = small_vae(), jnp.asarray(stripes(5) / 255, jnp.float32)
    more = (3,) if function == "iwae_bound" else ()

    def bound(model):
        value = getattr(vae, function)(model, x, KEY, *more)
        return (value[0] if isinstance(value, tuple) else value).sum()

    plain, compiled = nnx.value_and_grad(bound), nnx.jit(nnx.value_and_grad(bound))
    (value, gradient), (value_jit, gradient_jit) = plain(model), compiled(model)
    np.testing.assert_allclose(value, value_jit, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(gradient_jit), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_gradient_of_the_bound_is_the_slope_of_the_bound():
    """Along a random direction in all parameters, by central differences."""
    graphdef, params = nnx.split(jittered(small_vae()), nnx.Param)
    x = jnp.asarray(stripes(5) / 255, jnp.float32)

    def bound(params):
        return vae.elbo(nnx.merge(graphdef, params), x, KEY).bound.sum()

    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
    slope = sum(
        jnp.vdot(a, b)
        for a, b in zip(
            jax.tree.leaves(jax.grad(bound)(params)), jax.tree.leaves(direction), strict=True
        )
    )
    h = 1e-2
    ends = [bound(jax.tree.map(lambda p, d, h=h: p + h * d, params, direction)) for h in (h, -h)]
    # Differences of values near 30 in float32 are off by 4e-6 / 2h = 2e-4, curvature by h^2 times
    # a third derivative of order 100.
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * h), rtol=2e-2, atol=2e-2)
