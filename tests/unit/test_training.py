"""vae.fit: what it learns, what it promises about bits, batches, keys and errors."""

import functools
import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from unit_helpers import (
    DATA_DIM,
    assert_same_curve,
    assert_same_params,
    params_of,
    small_vae,
    stripes,
)

import vae

KEY = jax.random.key(3)
ADAM = optax.adam(1e-2)  # one object for all, so that equal runs compile once


def train(model, images, **options):
    settings = {
        "key": KEY,
        "epochs": 2,
        "batch_size": 5,
        "optimizer": ADAM,
        "progress": False,
    }
    return vae.fit(model, images, **(settings | options))


# Learning


def test_training_raises_the_bound():
    model, images = small_vae(), stripes(200)
    before = vae.evaluate(model, images, key=KEY).bound.mean()
    history = train(model, images, epochs=60, batch_size=20)
    after = vae.evaluate(model, images, key=KEY).bound.mean()
    # An untrained decoder says about log(1/2) per pixel: -4.2 nats. Six pixels of which half are
    # at 0.95 and half at 0.18 on average have a cross-entropy of 3 (0.22 + 0.46) = 2.0 nats once
    # one bit (0.7 nats) has been spent on which half: -2.7 at best. Half of that way is asked for.
    assert before < -4
    assert after > -3.4
    assert history.bound[-1] > history.bound[0] + 0.6
    # The curve and the evaluation are the same quantity, up to noise and one epoch's drift.
    assert abs(history.bound[-1] - after) < 0.3


def test_training_is_in_place_and_moves_every_parameter():
    model = small_vae()
    before = params_of(model)
    train(model, stripes(23))
    for name, value in params_of(model).items():
        assert (value != before[name]).any(), name


# The same bits


@pytest.fixture(scope="module")
def plain_run():
    """Three epochs over 23 images, and the model they gave."""
    model = small_vae()
    history = train(model, stripes(23), epochs=3)
    return history, params_of(model)


def test_the_same_key_gives_the_same_bits_and_another_key_others(plain_run):
    history, params = plain_run
    model = small_vae()
    assert_same_curve(train(model, stripes(23), epochs=3), history)
    assert_same_params(model, params)
    other = train(small_vae(), stripes(23), epochs=3, key=jax.random.key(4))
    assert (other.bound != history.bound).all()


def test_levels_and_intensities_train_to_the_same_model(plain_run):
    history, params = plain_run
    model = small_vae()
    intensities = stripes(23) / np.float32(255)
    # XLA divides by multiplying with 1/255, which is off by an ulp (6e-8) at half of the levels,
    # and the two programs round sums differently: not the same bits, but the same numbers.
    np.testing.assert_allclose(train(model, intensities, epochs=3).bound, history.bound, rtol=1e-5)
    for name, value in params_of(model).items():
        np.testing.assert_allclose(value, params[name], atol=1e-5, err_msg=name)


def test_watching_a_validation_set_changes_nothing_in_the_training(plain_run):
    history, params = plain_run
    model = small_vae()
    watched = train(model, stripes(23), epochs=3, validation=stripes(9, seed=1))
    assert_same_params(model, params)
    np.testing.assert_array_equal(watched.bound, history.bound)
    assert np.isfinite(watched.validation_bound).all()
    assert np.isnan(history.validation_bound).all()


def test_validation_scores_the_validation_set_with_the_parameters_after_the_epoch():
    model = small_vae()
    white, black = np.full((100, DATA_DIM), 255, np.uint8), np.zeros((2000, DATA_DIM), np.uint8)
    history = train(model, white, validation=black, epochs=1, optimizer=optax.adam(0.1))
    own = vae.evaluate(model, black, key=jax.random.key(99)).bound
    # Means of 2000 single-sample bounds, by two keys: five standard errors of each.
    slack = 5 * np.sqrt(2) * np.std(own) / np.sqrt(len(own))
    assert abs(history.validation_bound[0] - own.mean()) < slack + 1e-5
    # Of white images, or before the epoch (log(1/2) per pixel), the score is another.
    assert own.mean() < -5 - slack
    assert vae.evaluate(model, white, key=KEY).bound.mean() > own.mean() + 2


def test_validation_comes_every_nth_epoch_and_after_the_last():
    history = train(small_vae(), stripes(23), epochs=5, validation=stripes(4), validate_every=2)
    assert np.isfinite(history.validation_bound).tolist() == [False, True, False, True, True]


def test_validation_may_come_when_a_function_of_the_epochs_done_says_so():
    chosen = train(
        small_vae(),
        stripes(23),
        epochs=4,
        validation=stripes(4),
        validate_every={1, 3}.__contains__,
    )
    assert np.isfinite(chosen.validation_bound).tolist() == [True, False, True, True]


# Epochs, batches and keys


def test_examples_are_counted_without_the_remainder(plain_run):
    history, _ = plain_run  # 23 images in batches of 5: 4 batches an epoch
    assert history.examples.tolist() == [20, 40, 60]
    assert history.examples.dtype == np.int64
    assert (np.diff(history.seconds) > 0).all() and history.seconds[0] > 0


@pytest.fixture(scope="module")
def witnessed():
    """What an objective was given over three epochs of 20 images: (rows of a batch, key) each."""
    images = stripes(20)
    images[:, 0] = np.arange(20)  # each image says which one it is
    seen = []

    def objective(model, x, key):
        rows = jnp.rint(x[:, 0] * 255).astype(int)
        jax.debug.callback(
            lambda *given: seen.append(tuple(tuple(np.ravel(a).tolist()) for a in given)),
            *(rows, jax.random.key_data(key), x[:, 1:]),
        )
        return vae.elbo(model, x, key)

    train(small_vae(), images, epochs=3, objective=objective)
    jax.effects_barrier()
    return images, seen


def test_every_image_is_seen_once_an_epoch(witnessed):
    _, seen = witnessed
    assert len(seen) == 3 * 4
    counts = np.bincount(np.concatenate([rows for rows, _, _ in seen]), minlength=20)
    assert counts.tolist() == [3] * 20


def test_every_epoch_has_an_order_of_its_own(witnessed):
    _, seen = witnessed
    # Two of twelve batches equal by chance: 66 pairs over 20!/15! = 1.9 million ordered fives.
    assert len({rows for rows, _, _ in seen}) == 12
    assert tuple(range(5)) not in {rows for rows, _, _ in seen}


def test_every_step_of_every_epoch_has_a_key_of_its_own(witnessed):
    _, seen = witnessed
    assert len({key for _, key, _ in seen}) == 12


def test_the_objective_sees_intensities_not_levels(witnessed):
    images, seen = witnessed
    for rows, _, pixels in seen:
        expected = images[list(rows), 1:] / 255
        np.testing.assert_allclose(np.reshape(pixels, (5, -1)), expected, rtol=1e-6)


def test_at_a_rate_of_zero_epochs_differ_by_their_noise_alone():
    images = np.tile(stripes(1), (12, 1))
    model = small_vae()
    before = params_of(model)
    history = train(model, images, epochs=4, batch_size=12, optimizer=optax.sgd(0.0))
    assert_same_params(model, before)
    np.testing.assert_allclose(history.kl, history.kl[0], rtol=1e-6)  # q is fixed: no noise in it
    assert len(np.unique(history.log_likelihood)) == 4


def test_two_identical_examples_of_a_batch_get_different_noise():
    model, x = small_vae(), jnp.tile(jnp.asarray(stripes(1) / 255, jnp.float32), (6, 1))
    _, log_likelihood, kl = vae.elbo(model, x, KEY)
    assert len(np.unique(log_likelihood)) == 6
    np.testing.assert_array_equal(kl, kl[0])
    assert len(np.unique(vae.iwae_bound(model, x, KEY, 3))) == 6


# Against an oracle


def reconstruction(model, x, key):
    """An objective without randomness."""
    return -jnp.sum((model.decoder(model.encoder(x)[0]) - x) ** 2, axis=-1)


@pytest.mark.parametrize("optimizer", [optax.sgd(0.1), optax.adam(1e-2)], ids=["sgd", "adam"])
def test_fit_takes_the_steps_of_a_loop_written_by_hand(optimizer):
    x = np.random.default_rng(0).uniform(size=(8, DATA_DIM)).astype(np.float32)
    model = small_vae()
    history = train(model, x, epochs=3, batch_size=8, optimizer=optimizer, objective=reconstruction)

    graphdef, params = nnx.split(small_vae(), nnx.Param)
    state, values = optimizer.init(params), []
    for _ in range(3):

        def loss(params):
            return -sum(reconstruction(nnx.merge(graphdef, params), x, None)) / 8

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        values.append(-value)
    np.testing.assert_allclose(history.objective, values, rtol=1e-5)
    ours, theirs = params_of(model), params_of(nnx.merge(graphdef, params))
    for name in ours:
        # The order within the batch is another, so sums round differently; Adam divides by the
        # gradient's own size, which magnifies that where it is near 0.
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_mean_of_the_batch_is_maximised_whatever_its_size():
    """Eight copies of a set, in one batch, give the step of the set itself."""
    x = np.random.default_rng(0).uniform(size=(2, DATA_DIM)).astype(np.float32)
    models = small_vae(), small_vae()
    for model, images in zip(models, (x, np.tile(x, (8, 1))), strict=True):
        train(
            model,
            images,
            epochs=1,
            batch_size=len(images),
            optimizer=optax.sgd(0.1),
            objective=reconstruction,
        )
    few, many = map(params_of, models)
    for name in few:
        np.testing.assert_allclose(few[name], many[name], rtol=1e-5, atol=1e-6)


# Objectives


def test_the_terms_of_the_curve_belong_together(plain_run):
    history, _ = plain_run
    np.testing.assert_allclose(history.bound, history.log_likelihood - history.kl, rtol=1e-12)
    # Under `elbo` the objective is the bound; one is a mean of differences, in float32.
    np.testing.assert_allclose(history.objective, history.bound, rtol=1e-5)
    assert (history.kl > 0).all() and (history.log_likelihood < 0).all()


@pytest.mark.parametrize("beta", [0.5, 4.0])
def test_beta_weighs_the_kl_of_the_objective_and_not_of_the_bound(beta):
    objective = functools.partial(vae.beta_objective, beta=beta)
    history = train(small_vae(), stripes(20), objective=objective)
    np.testing.assert_allclose(
        history.objective, history.log_likelihood - beta * history.kl, rtol=1e-5
    )
    np.testing.assert_allclose(history.bound, history.log_likelihood - history.kl, rtol=1e-12)


def test_beta_objective_is_the_elbo_reweighted():
    model, x = small_vae(), jnp.asarray(stripes(4) / 255, jnp.float32)
    bound, log_likelihood, kl = vae.elbo(model, x, KEY)
    weighted = vae.beta_objective(model, x, KEY, 3.0)
    np.testing.assert_array_equal(weighted.log_likelihood, log_likelihood)
    np.testing.assert_array_equal(weighted.kl, kl)
    np.testing.assert_allclose(weighted.objective, log_likelihood - 3 * kl, rtol=1e-6)
    np.testing.assert_allclose(vae.beta_objective(model, x, KEY, 1.0).objective, bound, rtol=1e-6)


def test_a_large_beta_presses_q_onto_the_prior():
    kls = []
    for beta in (0.0, 50.0):
        model = small_vae()
        objective = functools.partial(vae.beta_objective, beta=beta)
        train(model, stripes(40), epochs=40, batch_size=20, objective=objective)
        kls.append(float(vae.evaluate(model, stripes(40), key=KEY).kl.mean()))
    # Free of charge, latents take more than the 0.7 nats of which half is bright; at fifty times
    # its price nothing is worth them.
    assert kls[0] > 0.7 and kls[1] < 0.02


def test_the_importance_weighted_bound_can_be_trained():
    objective = functools.partial(vae.iwae_bound, num_samples=5)
    model, images = small_vae(), stripes(100)
    history = train(model, images, objective=objective, epochs=40, batch_size=20)
    assert history.objective[-1] > history.objective[0] + 0.5  # as in the first test, and why
    for silent in (history.bound, history.log_likelihood, history.kl):
        assert np.isnan(silent).all()


# Stopping at the first number that is none


def exploding():
    """Gradient descent at a rate of 0.01, but `how` at update number `step`, counted from 1.

    Both are set in `breaks` before a run; kept in the state, they cost no compilation.
    """
    breaks = {"step": 0, "how": 0.0}

    def init(params):
        return jnp.zeros((), int), jnp.asarray(breaks["step"]), jnp.asarray(breaks["how"])

    def update(gradient, state, params=None):
        count, step, how = state
        rate = jnp.where(count + 1 == step, how, 0.01)
        return jax.tree.map(lambda g: -rate * g, gradient), (count + 1, step, how)

    return optax.GradientTransformation(init, update), breaks


EXPLODING, BREAKS = exploding()


@pytest.mark.parametrize("how", [np.nan, np.inf])
@pytest.mark.parametrize(
    "step, epoch, message",
    [
        (1, 1, "objective became nan at step 2 "),
        (3, 1, "objective became nan at step 4 "),
        (4, 1, "update of step 4 made the parameters non-finite"),
        (5, 2, "objective became nan at step 6 "),
        (8, 2, "update of step 8 made the parameters non-finite"),
    ],
)
def test_training_stops_at_the_step_that_broke(monkeypatch, how, step, epoch, message):
    model, reference, images = small_vae(), small_vae(), stripes(23)  # four steps an epoch
    monkeypatch.setitem(BREAKS, "step", step)
    monkeypatch.setitem(BREAKS, "how", how)
    with pytest.raises(FloatingPointError, match=message):
        train(model, images, epochs=3, optimizer=EXPLODING)
    if epoch > 1:  # the epochs before are kept, to the bit
        monkeypatch.setitem(BREAKS, "step", 0)
        train(reference, images, epochs=epoch - 1, optimizer=EXPLODING)
    assert_same_params(model, reference)


def test_a_first_objective_that_is_no_number_is_named_as_step_one():
    model = small_vae()

    def objective(model, x, key):
        return vae.elbo(model, x, key).bound * jnp.nan

    with pytest.raises(FloatingPointError, match="at step 1 "):
        train(model, stripes(20), objective=objective)
    assert_same_params(model, small_vae())


def test_a_gradient_that_is_no_number_behind_a_finite_objective_is_caught():
    def objective(model, x, key):
        zero = 0 * model.encoder(x)[0]
        return vae.elbo(model, x, key).bound + jnp.sqrt(zero**2).sum(axis=-1)  # 0 / 0 in reverse

    model = small_vae()
    with pytest.raises(FloatingPointError, match="parameters non-finite"):
        train(model, stripes(5), epochs=1, objective=objective)  # one step: no objective after it
    assert_same_params(model, small_vae())


def test_parameters_that_break_without_a_trace_in_the_objective_are_traced_to_their_step():
    """A bias of infinity saturates tanh: the objective stays finite, and so do the gradients."""

    def update(gradient, count, params=None):
        def one(path, g):
            hidden = "hidden" in jax.tree_util.keystr(path) and "bias" in jax.tree_util.keystr(path)
            return jnp.where(hidden & (count == 1), jnp.inf, 0.0) + 0 * g

        return jax.tree_util.tree_map_with_path(one, gradient), count + 1

    optimizer = optax.GradientTransformation(lambda params: jnp.zeros((), int), update)
    with pytest.raises(FloatingPointError, match="step 2 "):
        train(small_vae(), stripes(23), epochs=1, optimizer=optimizer)


# Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_in_a_log_is_a_few_whole_lines_of_which_the_last_is_the_last_state(capsys):
    history = train(small_vae(), stripes(23), epochs=30, progress=True, validation=stripes(4))
    lines = capsys.readouterr().out.splitlines()
    assert 5 <= len(lines) <= 12
    assert not any(c in "".join(lines) for c in "\r\033")
    assert re.match(r"epoch  1/30  bound -\d+\.\d\d nats", lines[0])
    assert all(re.search(r"about \d+ s left$", line) for line in lines[:-1])
    assert lines[-1].startswith(f"epoch 30/30  bound {history.objective[-1]:.2f} nats")
    assert f"validation bound {history.validation_bound[-1]:.2f}" in lines[-1]
    assert re.search(r"\d s$", lines[-1]) and "left" not in lines[-1]


def test_progress_in_a_terminal_rewrites_one_line_and_ends_it(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    train(small_vae(), stripes(23), epochs=3, progress=True)
    text = terminal.getvalue()
    assert text.count("\r") == 3 and text.count("\n") == 1 and text.endswith("\n")
    assert text.rpartition("\r\033[K")[2].startswith("epoch 3/3  bound ")


def test_progress_names_another_objective_by_that_word_and_can_be_switched_off(capsys):
    objective = functools.partial(vae.beta_objective, beta=2.0)
    train(small_vae(), stripes(10), epochs=1, progress=True, objective=objective)
    assert capsys.readouterr().out.startswith("epoch 1/1  objective -")
    train(small_vae(), stripes(23), epochs=1, progress=False)
    assert capsys.readouterr().out == ""


# Schedules


def test_a_schedule_sees_every_step_of_the_run_once():
    def objective(model, x, key, *, number):
        terms = vae.elbo(model, x, key)
        return terms.bound * 0 + number, terms.log_likelihood, terms.kl

    history = vae.fit(
        small_vae(),
        stripes(22),
        key=KEY,
        epochs=3,
        batch_size=5,
        optimizer=optax.sgd(0.1),
        objective=objective,
        schedules={"number": lambda step: jnp.float32(step)},
        progress=False,
    )
    # Four steps an epoch, counted from 0 through all epochs: the means of 0..3, 4..7, 8..11.
    np.testing.assert_array_equal(history.objective, [1.5, 5.5, 9.5])


def test_a_scheduled_beta_weighs_each_step_as_its_schedule_says():
    schedule, images = optax.linear_schedule(0.0, 1.0, 6), stripes(20)
    settings = {"key": KEY, "batch_size": 5, "optimizer": optax.sgd(1e-2), "progress": False}
    scheduled = small_vae()
    options = {"objective": vae.beta_objective, "schedules": {"beta": schedule}}
    history = vae.fit(scheduled, images, epochs=2, **options, **settings)
    # The objective's mean over an epoch determines the mean weight where the KL hardly moves.
    weights = (history.log_likelihood - history.objective) / history.kl
    np.testing.assert_allclose(weights, [0.25, (4 / 6 + 5 / 6 + 2) / 4], rtol=0.1)
    constant = small_vae()
    vae.fit(constant, images, epochs=2, objective=vae.beta_objective, **settings)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(params_of(scheduled).values(), params_of(constant).values(), strict=True)
    )


@pytest.mark.parametrize(
    "schedules, message",
    [
        ({"gamma": lambda step: 1.0}, r"no argument 'gamma'.*\['model', 'x', 'key', 'beta'"),
        ({"beta": 3.0}, "schedules must be a dict"),
        ([lambda step: 1.0], "schedules must be a dict"),
    ],
)
def test_a_schedule_that_the_objective_cannot_take_is_refused(schedules, message):
    with pytest.raises(TypeError, match=message):
        vae.fit(
            small_vae(),
            stripes(20),
            key=KEY,
            epochs=1,
            batch_size=5,
            optimizer=optax.sgd(0.1),
            objective=vae.beta_objective,
            schedules=schedules,
        )
