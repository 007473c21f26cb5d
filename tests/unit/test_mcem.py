"""Monte Carlo EM: what it learns, what it leaves alone, and that it resumes to the same bits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import stats
from unit_helpers import LinearGaussian, assert_same_params, params_of, small_vae, stripes

from vae import checkpoints
from vae.baselines import mcem
from vae.baselines.mcem import fit_mcem
from vae.model import LearnedGaussian

KEY = jax.random.key(31)
ADAM = optax.adam(1e-2)
IMAGES = stripes(22)  # four minibatches of five, and two images left over


def train(model, images=IMAGES, **options):
    settings = {
        "key": KEY,
        "epochs": 4,
        "batch_size": 5,
        "optimizer": ADAM,
        "num_leapfrog": 3,
        "progress": False,
    }
    return fit_mcem(model, images, **(settings | options))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: (its curve, its parameters, the arrays of its checkpoint)."""
    model, path = small_vae(), tmp_path_factory.mktemp("whole") / "run.npz"
    history = train(model, checkpoint=path)
    return history, params_of(model), checkpoints.read(path)[0]


# Learning


def test_it_finds_the_maximum_of_the_likelihood():
    """One latent, four pixels: the maximum is probabilistic PCA's, known in closed form."""
    rng = np.random.default_rng(0)
    direction, std = np.array([1.5, -1.0, 0.5, 0.0]), 0.5
    x = rng.normal(size=(400, 1)) * direction + std * rng.normal(size=(400, 4)) + 0.3
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    start = LinearGaussian(
        rng.normal(size=(4, 1)), np.zeros(4), std, np.zeros((1, 4)), np.zeros(1), np.ones(1)
    )

    def likelihood(w, b):
        covariance = np.outer(w, w) + std**2 * np.eye(4)
        return stats.multivariate_normal(b, covariance).logpdf(x).mean()

    best = likelihood(vectors[:, -1] * np.sqrt(values[-1] - std**2), x.mean(axis=0))
    before = likelihood(start.W[:, 0], start.b)
    model = start.model
    history = fit_mcem(
        model,
        x.astype(np.float32),
        key=KEY,
        epochs=60,
        batch_size=100,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 60 * 4 * 5)),
        progress=False,
    )
    w, b = model.decoder.output.kernel[...][0], model.decoder.output.bias[...]
    after = likelihood(np.asarray(w, np.float64), np.asarray(b, np.float64))
    # One posterior sample per image and visit; what is lost below the maximum is of second order.
    assert before < best - 0.5
    assert best - 0.02 < after <= best + 1e-6
    # The step size has settled where nine of ten are accepted.
    assert history.acceptance[-10:].mean() == pytest.approx(0.9, abs=0.03)
    # At the posterior, E log p(x, z) is the evidence less the posterior's entropy.
    posterior = LinearGaussian(np.array(w, np.float64)[:, None], np.array(b, np.float64), std,
                               start.A, start.a, start.var)  # fmt: skip
    entropy = 0.5 * np.log(2 * np.pi * np.e * posterior.posterior(x[0])[1][0, 0])
    assert history.log_joint[-10:].mean() == pytest.approx(after - entropy, abs=0.05)


def test_the_encoder_stays_as_it_is_and_the_decoder_does_not(whole):
    before, after = params_of(small_vae()), whole[1]
    for name in before:
        assert np.array_equal(before[name], after[name]) == ("encoder" in name), name


def test_the_optimiser_sees_the_parameters_of_p_alone():
    seen = []

    def update(gradient, state, params=None):
        leaves = jax.tree_util.tree_leaves_with_path(gradient)
        seen.append({jax.tree_util.keystr(at) for at, _ in leaves})
        assert jax.tree.structure(gradient) == jax.tree.structure(params)
        return jax.tree.map(lambda g: -0.01 * g, gradient), state

    optimizer = optax.GradientTransformation(lambda params: jnp.zeros(()), update)
    model = small_vae(likelihood=LearnedGaussian(std=0.5))
    before = params_of(model)
    train(model, optimizer=optimizer, epochs=1)
    changed = {name for name, value in params_of(model).items() if (value != before[name]).any()}
    assert seen and seen[0] == changed
    assert any("likelihood" in name for name in changed)
    assert not any("encoder" in name for name in changed)


# What it counts


def test_a_visit_counts_once_for_each_of_its_updates(whole):
    history, _, arrays = whole
    np.testing.assert_array_equal(history.examples, 4 * 5 * 5 * np.arange(1, 5))
    assert (np.diff(history.seconds) > 0).all()
    counts = [value for name, value in arrays.items() if name.endswith("count")]
    assert counts and all(count == 4 * 4 * 5 for count in counts)
    few = train(small_vae(), num_updates=2, epochs=1)
    np.testing.assert_array_equal(few.examples, [4 * 5 * 2])


def test_chains_start_at_the_prior_and_those_of_left_over_images_wait(tmp_path):
    """Two runs that differ in their trajectories alone: where they agree, no chain has moved."""
    chains = []
    for num_leapfrog in (2, 3):
        path = tmp_path / f"{num_leapfrog}.npz"
        train(
            small_vae(),
            stripes(500),
            epochs=1,
            batch_size=400,
            num_leapfrog=num_leapfrog,
            checkpoint=path,
        )
        stored = checkpoints.read(path)[0].values()
        chains.append(next(value for value in stored if value.shape == (500, 2)))
    waited = (chains[0] == chains[1]).all(axis=1)
    # 100 were not visited; of the 400 others, few rejected their move both times.
    assert 100 <= waited.sum() <= 180
    # A hundred draws of N(0, I): five standard errors.
    assert np.abs(chains[0][waited].mean(axis=0)).max() < 0.5
    assert chains[0][waited].std() == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("persistent", [True, False])
def test_each_image_has_a_chain_that_finds_its_own_posterior(tmp_path, persistent):
    """After many visits without learning, chains are draws of the exact posteriors of their x."""
    rng = np.random.default_rng(0)
    case = LinearGaussian(
        np.array([[2.0, 1.5], [1.0, -1.0], [0.5, 2.0]]), np.zeros(3), 0.7, np.zeros((2, 3)),
        np.zeros(2), np.ones(2),
    )  # fmt: skip
    x = 2 * rng.normal(size=(2000, 3))
    path = tmp_path / "run.npz"
    fit_mcem(case.model, x.astype(np.float32), key=KEY, epochs=40, batch_size=400,
             optimizer=optax.sgd(0.0), checkpoint=path, checkpoint_every=40, persistent=persistent,
             progress=False)  # fmt: skip
    chains = next(v for v in checkpoints.read(path)[0].values() if v.shape == (2000, 2))
    means = np.stack([case.posterior(one)[0] for one in x])
    residuals, covariance = chains - means, case.posterior(x[0])[1]
    assert means.std() > 2 * np.sqrt(covariance.max())
    if not persistent:  # one transition from the prior: some are there, many are not yet
        assert np.trace(np.cov(residuals.T)) > 1.5 * np.trace(covariance)
        return
    # Five standard errors of means and covariances over 2,000 independent chains.
    error = np.sqrt(np.diag(covariance) / 2000)
    assert (np.abs(residuals.mean(axis=0)) < 5 * error).all()
    np.testing.assert_allclose(
        np.cov(residuals.T), covariance, atol=5 * np.sqrt(2 / 2000) * covariance.max()
    )


def test_the_callback_and_the_progress_tell_every_epoch(capsys):
    seen, model = [], small_vae()
    train(model, progress=True, callback=lambda done, given: seen.append((done, given is model)))
    assert seen == [(done, True) for done in (1, 2, 3, 4)]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[-1].startswith("epoch 4/4  log p(x, z) -")
    assert "% accepted" in lines[-1]


# Resuming


def assert_same(history, params, whole):
    for field in dataclasses.fields(history):
        if field.name != "seconds":
            a, b = (getattr(one, field.name) for one in (history, whole[0]))
            np.testing.assert_array_equal(a, b)
    assert_same_params(params, whole[1])


def test_the_key_decides_the_result(whole):
    model = small_vae()
    assert_same(train(model), model, whole)
    other = train(small_vae(), key=jax.random.key(32))
    assert (other.log_joint != whole[0].log_joint).all()


@pytest.mark.parametrize(("at", "every"), [(2, 1), (4, 1), (4, 2)])
def test_an_interrupted_run_resumes_to_the_same_bits(monkeypatch, tmp_path, whole, at, every):
    path, original, calls = tmp_path / "run.npz", mcem._run_epoch, []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(mcem, "_run_epoch", dying)
        with pytest.raises(KeyboardInterrupt):
            train(small_vae(), checkpoint=path, checkpoint_every=every)
    assert len(checkpoints.read(path)[1]["curve"]) == (at - 1) // every * every
    model = small_vae(seed=7)
    history = train(model, checkpoint=path, checkpoint_every=every)
    encoder = {name: value for name, value in params_of(model).items() if "encoder" in name}
    assert_same(history, params_of(model) | {n: whole[1][n] for n in encoder}, whole)
    arrays = checkpoints.read(path)[0]
    assert arrays.keys() == whole[2].keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, whole[2][name], err_msg=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": jax.random.key(6)}, "another run.*key"),
        ({"images": IMAGES[::-1]}, "another run.*images"),
        ({"num_leapfrog": 4}, r"another run.*num_leapfrog': \(3, 4\)"),
        ({"num_updates": 1}, r"another run.*num_updates': \(5, 1\)"),
        ({"target_acceptance": 0.8}, "another run.*target_acceptance"),
        ({"persistent": False}, r"another run.*persistent': \(True, False\)"),
        ({"epochs": 1}, "stands at epoch 2, beyond epochs=1"),
        ({"optimizer": optax.sgd(0.1)}, "checkpoint of something else"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_left_alone(tmp_path, options, message):
    path = tmp_path / "run.npz"
    train(small_vae(), epochs=2, checkpoint=path)
    before, model = path.read_bytes(), small_vae()
    with pytest.raises(ValueError, match=message):
        train(model, checkpoint=path, **options)
    assert path.read_bytes() == before
    assert_same_params(model, small_vae())


# Errors


def test_training_stops_where_a_number_is_none_and_keeps_what_was_before():
    at_twenty_five = optax.sgd(lambda count: jnp.where(count == 25, np.nan, 0.01))
    model, reference = small_vae(), small_vae()
    with pytest.raises(FloatingPointError, match="in epoch 2 "):
        train(model, optimizer=at_twenty_five)  # twenty updates an epoch
    train(reference, optimizer=at_twenty_five, epochs=1)
    assert_same_params(model, reference)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 23}, ValueError, "batch_size is 23, but there are only 22"),
        ({"num_leapfrog": 0}, ValueError, "num_leapfrog must be at least 1"),
        ({"num_updates": 0}, ValueError, "num_updates must be at least 1"),
        ({"target_acceptance": 0.0}, ValueError, "target_acceptance must be"),
        ({"target_acceptance": 1.0}, ValueError, "target_acceptance must be below 1"),
        ({"optimizer": 0.1}, TypeError, "optimizer must be one of Optax's"),
        ({"callback": 3}, TypeError, "callback must be a function"),
        ({"checkpoint": "run.pkl"}, ValueError, "name of an .npz file"),
        ({"images": np.zeros((3, 7))}, ValueError, "last dimension of 6"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(monkeypatch, options, error, message):
    monkeypatch.setattr(mcem, "_run_epoch", None)
    with pytest.raises(error, match=message):
        train(small_vae(), **options)


def test_it_needs_a_model_with_a_prior():
    from vae import Autoencoder

    model = small_vae()
    with pytest.raises(TypeError, match="needs a model with a prior"):
        train(Autoencoder(model.encoder, model.decoder))
    assert nnx.state(model)  # untouched
