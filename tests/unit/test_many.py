"""vae.fit_many: many models at once, each as `fit` alone would have left it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from unit_helpers import assert_same_params, params_of, small_vae, stripes

import vae

KEY = jax.random.key(5)
ADAM = optax.adam(1e-2)
SETTINGS = {"key": KEY, "epochs": 3, "batch_size": 5, "optimizer": ADAM, "progress": False}


def train(models, images, **options):
    return vae.fit_many(models, images, **(SETTINGS | options))


def test_each_model_ends_where_fit_with_its_key_would_have_left_it():
    images = stripes(23)
    together, alone = ([small_vae(seed) for seed in (4, 5, 6)] for _ in range(2))
    before = [params_of(model) for model in together]
    schedules = {"beta": optax.linear_schedule(0.0, 2.0, 12)}
    options = {"objective": vae.beta_objective, "schedules": schedules}
    curves = train(together, images, **options)
    for model, start, other, key, curve in zip(
        together, before, alone, jax.random.split(KEY, 3), curves, strict=True
    ):
        expected = vae.fit(other, images, **(SETTINGS | {"key": key} | options))
        for name, value in params_of(other).items():
            # Adam divides by small numbers: a rounding in a gradient grows in twelve steps, but
            # stays far below the way that a parameter goes (another key: .01 and more).
            np.testing.assert_allclose(params_of(model)[name], value, atol=2e-4, err_msg=name)
            assert abs(value - start[name]).max() > 0.01
        for field in ("examples", "objective", "bound", "log_likelihood", "kl"):
            np.testing.assert_allclose(
                getattr(curve, field), getattr(expected, field), rtol=1e-4, atol=1e-4
            )
        assert np.isnan(curve.validation_bound).all() and len(curve.seconds) == 3
        assert curve.examples.dtype == expected.examples.dtype


def test_equal_models_part_because_their_keys_differ():
    models = [small_vae(0), small_vae(0)]
    train(models, stripes(23))
    first, second = map(params_of, models)
    assert all(abs(first[name] - second[name]).max() > 1e-4 for name in first)


def test_plain_autoencoders_train_together_too():
    def autoencoder(seed):
        made = small_vae(seed)
        return vae.Autoencoder(made.encoder, made.decoder)

    models = [autoencoder(0), autoencoder(1)]
    curves = train(models, stripes(40), epochs=30, objective=vae.reconstruction)
    assert all(curve.objective[-1] > curve.objective[0] + 0.2 for curve in curves)
    assert np.isnan(curves[0].kl).all()


@pytest.mark.parametrize("many", [False, True])
def test_the_callback_sees_the_models_after_each_epoch(many):
    model, seen = small_vae(), []

    def callback(epoch, given):
        given = given[0] if many else given
        assert given is model
        seen.append((epoch, params_of(given)))

    if many:
        train([model], stripes(23), callback=callback)
    else:
        vae.fit(model, stripes(23), callback=callback, **SETTINGS)
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert_same_params(seen[-1][1], model)
    name = next(iter(seen[0][1]))
    assert not np.array_equal(seen[0][1][name], seen[1][1][name])


def test_training_stops_at_the_model_and_the_step_that_broke():
    def marked(seed, mark):
        model = small_vae(seed)
        model.encoder.mean.bias[...] = jnp.full(2, mark)
        return model

    def objective(model, x, key):
        broken = model.encoder.mean.bias[...].mean() > 50
        return jnp.where(broken, jnp.nan, vae.elbo(model, x, key).bound)

    models = [marked(0, 0.0), marked(1, 0.0), marked(2, 100.0)]
    before = list(map(params_of, models))
    with pytest.raises(FloatingPointError, match=r"nan at step 1 .*models\[2\] keeps"):
        train(models, stripes(23), objective=objective)
    for model, start in zip(models, before, strict=True):
        assert_same_params(model, start)


def test_progress_names_the_range_over_the_models(capsys):
    curves = train([small_vae(0), small_vae(1)], stripes(23), progress=True)
    low, high = sorted(curve.objective[-1] for curve in curves)
    assert f"bound {low:.2f} to {high:.2f} nats over 2 models" in capsys.readouterr().out


def wider(seed):
    rngs = nnx.Rngs(seed)
    return vae.VAE(vae.MLPEncoder(6, (9,), 2, rngs=rngs), vae.MLPDecoder(2, (9,), 6, rngs=rngs))


@pytest.mark.parametrize(
    "models, options, error, message",
    [
        ([], {}, ValueError, "at least one model"),
        ([small_vae(0), wider(0)], {}, ValueError, r"models\[1\] has another"),
        ([small_vae(0), small_vae(0, vae.Gaussian(1.0))], {}, ValueError, r"models\[1\] has an"),
        ([small_vae(0)], {"batch_size": 99}, ValueError, "batch_size is 99"),
        ([small_vae(0)], {"callback": 3}, TypeError, "callback must be a function or None"),
        ([small_vae(0)], {"key": 3}, TypeError, "key must be one JAX random key"),
        ([small_vae(0)], {"optimizer": None}, TypeError, "one of Optax's"),
    ],
)
def test_wrong_arguments(models, options, error, message):
    with pytest.raises(error, match=message):
        train(models, stripes(23), **options)
