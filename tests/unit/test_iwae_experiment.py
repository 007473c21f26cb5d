"""The importance-weighted autoencoder's experiment, and that on how likely the data is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments import iwae, ledger, likelihood, precision, runs
from flax import nnx
from unit_helpers import OFFSET, ORTHOGONAL, LinearGaussian, X, at_posterior

import vae
from vae.evaluation import evidence

KEY = jax.random.key(3)
EXACT = at_posterior(ORTHOGONAL, OFFSET, 0.8)
# The same model with a q that is too wide, and off.
OFF = LinearGaussian(ORTHOGONAL, OFFSET, 0.8, EXACT.A, EXACT.a + 0.2, 1.8 * EXACT.var)
XS = np.stack([X, -X, 0.5 * X, 0.3 * X, X - 0.2]).astype(np.float32)
SMALL = [iwae.Run("iwae", 2, last=3), iwae.Run("iwae", 2, last=2, seed=1)]


# Protocol


def test_the_schedule_is_that_of_burda_et_al():
    assert [iwae.epochs_after(i) for i in range(8)] == [1, 4, 13, 40, 121, 364, 1093, 3280]
    adam, steps = iwae.optimizer(2), 2 * 40
    params = jnp.zeros(())
    state, rates = adam.init(params), []
    for _ in range(steps):
        update, state = adam.update(jnp.ones(()), state, params)
        rates.append(-float(update))  # Adam's step under a constant gradient is the rate
    expected = np.repeat([0.001 * 10 ** (-i / 7) for i in range(4)], 2 * 3 ** np.arange(4))
    np.testing.assert_allclose(rates, expected, rtol=1e-4)


def test_epsilon_is_that_of_gradients_summed_over_the_minibatch():
    summed = 1e-4  # as large as epsilon, so that it halves the step
    adam = iwae.optimizer(100)
    update, _ = adam.update(jnp.array(summed / iwae.BATCH), adam.init(jnp.zeros(())))
    np.testing.assert_allclose(update, -0.001 / 2, rtol=1e-3)


def test_the_model_starts_at_the_mean_image():
    mean = np.linspace(0, 1, 784)
    model = iwae.make_model(0, mean)
    start = model.decode(jnp.zeros((1, 50)))[0]
    np.testing.assert_allclose(start, np.clip(mean, 0.001, 0.999), rtol=1e-3)
    layers = [module for _, module in nnx.iter_graph(model) if isinstance(module, nnx.Linear)]
    sizes = sorted(layer.kernel.shape for layer in layers)
    assert sizes == [(50, 200), (200, 50), (200, 50), *2 * [(200, 200)], (200, 784), (784, 200)]
    for layer in layers:
        limit = np.sqrt(6 / sum(layer.kernel.shape))
        assert 0.99 * limit < abs(layer.kernel[...]).max() <= limit
        if layer is not model.decoder.output:
            assert not layer.bias[...].any()


def test_vae_and_iwae_maximise_the_mean_of_the_logs_and_the_log_of_the_mean(monkeypatch):
    def log_weights(model, x, key, num_samples):
        return jnp.log(1.0 + jnp.arange(num_samples))[:, None] + x.sum(axis=-1)

    for module in (vae, vae.objectives):
        monkeypatch.setattr(module, "log_importance_weights", log_weights)
    x = jnp.asarray([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])  # binarised already
    for (kind, k), expected in {
        ("vae", 1): 0,
        ("iwae", 1): 0,
        ("vae", 5): np.log([1, 2, 3, 4, 5]).mean(),
        ("iwae", 5): np.log(3),
    }.items():
        maximised = iwae.objective.__wrapped__(kind, k)(None, x, KEY)
        np.testing.assert_allclose(maximised, expected + np.arange(3), rtol=1e-5, atol=1e-6)


def test_images_are_binarised_anew_at_every_step(monkeypatch):
    monkeypatch.setattr(vae, "iwae_bound", lambda model, x, key, num_samples: x)
    grey, drawing = jnp.full((50, 784), 0.3), iwae.objective.__wrapped__("iwae", 1)
    drawn = [drawing(None, grey, jax.random.key(i)) for i in range(2)]
    for images in drawn:
        assert set(np.unique(images)) == {0, 1}
        assert abs(images.mean() - 0.3) < 5 * np.sqrt(0.21 / images.size)
    assert (drawn[0] != drawn[1]).mean() == pytest.approx(0.42, abs=0.02)


def test_all_sixty_thousand_train_and_the_test_images_are_binarised_once(monkeypatch):
    split = vae.datasets.Split
    levels = np.random.default_rng(2).integers(256, size=(60, 784), dtype=np.uint8)
    levels[:, 0], levels[:, 1] = 0, 255
    parts = [split(part, np.zeros(20)) for part in np.split(levels, 3)]
    mnist = vae.datasets.MNIST(*parts, source="made up")
    monkeypatch.setattr(vae.datasets, "mnist", lambda: mnist)
    np.testing.assert_array_equal(iwae.train_images.__wrapped__(), levels[:40])
    images = iwae.test_images.__wrapped__()
    np.testing.assert_array_equal(images, iwae.test_images.__wrapped__())
    assert images.shape == (20, 784) and images.dtype == np.float32
    assert set(np.unique(images)) == {0, 1}
    assert not images[:, 0].any() and images[:, 1].all()
    grey = images[:, 2:] - levels[40:, 2:] / 255  # of mean 0 and variance 1/6
    assert abs(grey.mean()) < 5 * np.sqrt(1 / 6 / grey.size)
    assert grey.var() == pytest.approx(1 / 6, rel=0.05)


def test_table_1_has_a_run_for_each_entry_and_more_samples_do_better():
    assert {(run.kind, run.k) for run in iwae.RUNS} == set(iwae.TABLE_1)
    assert len({run.name for run in iwae.RUNS}) == len(iwae.RUNS)
    assert iwae.COUNTS[-1] == 5000
    nll = {entry: values[0] for entry, values in iwae.TABLE_1.items()}
    assert nll["vae", 1] > nll["iwae", 5] > nll["iwae", 50]
    for kind, k in iwae.TABLE_1:  # all are compared after 40 epochs
        assert iwae.find(kind, k, 40)


# Scores


@pytest.fixture
def blocks(monkeypatch):
    """Blocks of two images."""
    monkeypatch.setattr(iwae, "BLOCK", 2)


def test_the_estimate_is_the_evidence_of_each_image(blocks, tmp_path):
    done = iwae.log_evidence(EXACT.model, XS, (1, 3), tmp_path / "a.npz")
    assert done.shape == (2, 5)
    np.testing.assert_allclose(done, 2 * [[EXACT.evidence(x) for x in XS]], atol=2e-5)
    done = iwae.log_evidence(OFF.model, XS, (1, 2000))
    np.testing.assert_allclose(done[1], [OFF.evidence(x) for x in XS], atol=0.1)
    # The draws of one block are not those of the next.
    same = iwae.log_evidence(OFF.model, np.tile(XS[:2], (2, 1)), (1,))[0]
    assert (abs(same[:2] - same[2:]) > 1e-3).all()


def test_a_killed_score_goes_on_to_the_same_numbers(blocks, tmp_path, monkeypatch):
    path, counts = tmp_path / "partial.npz", (1, 20)
    whole = iwae.log_evidence(OFF.model, XS, counts)
    asked = []

    def killed_after_two_blocks(model, block, key, counts):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(block)
        return estimate(model, block, key, counts)

    estimate = evidence.importance_sampling
    with monkeypatch.context() as patch:
        patch.setattr(evidence, "importance_sampling", killed_after_two_blocks)
        with pytest.raises(KeyboardInterrupt):
            iwae.log_evidence(OFF.model, XS, counts, path)
        np.testing.assert_array_equal(vae.checkpoints.read(path)[0]["done"], whole[:, :4])
        asked.clear()
        np.testing.assert_array_equal(iwae.log_evidence(OFF.model, XS, counts, path), whole)
        assert len(asked) == 1


def test_the_partial_scores_of_others_are_not_used(blocks, tmp_path):
    path = tmp_path / "partial.npz"
    iwae.log_evidence(OFF.model, XS, (1, 20), path)
    for model, images, counts in (
        (EXACT.model, XS, (1, 20)),
        (OFF.model, XS[::-1], (1, 20)),
        (OFF.model, XS, (1, 10)),
    ):
        others = iwae.log_evidence(model, images, counts, path)
        np.testing.assert_array_equal(others, iwae.log_evidence(model, images, counts))


def test_mean_and_standard_error_over_images():
    assert iwae.mean_and_error([1.0, 2.0, 6.0]) == pytest.approx((3, np.sqrt(7 / 3)))


# Whole runs, on forty images


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Forty training and ten test images, a small model, three short runs, their own folders."""
    rng = np.random.default_rng(0)
    shape = rng.random((3, 784)) < 0.3
    train = (200 * shape[rng.integers(3, size=40)] + rng.integers(55, size=(40, 784))).astype("u1")
    test = shape[rng.integers(3, size=10)].astype(np.float32)
    monkeypatch.setattr(iwae, "train_images", lambda: train)
    monkeypatch.setattr(iwae, "test_images", lambda: test)
    monkeypatch.setattr(iwae, "HIDDEN", (8, 8))
    monkeypatch.setattr(iwae, "LATENT", 4)
    monkeypatch.setattr(iwae, "COUNTS", (1, 10, 200))
    monkeypatch.setattr(iwae, "RUNS", SMALL)
    monkeypatch.setattr(runs, "STATE", tmp_path / "state")
    monkeypatch.setattr(runs, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(iwae, "TABLE_1", {("iwae", 2): (86.76, 19)})
    return tmp_path


def results(folder):
    """Everything recorded there that does not depend on the clock."""
    found = {}
    for path in sorted((folder / "results").glob("*.npz")):
        arrays, metadata = vae.checkpoints.read(path)
        del arrays["curve/seconds"]
        found[path.stem] = arrays, metadata["scores"]
    return found


def test_every_stage_is_scored_as_kept(small):
    for run in SMALL:
        iwae.record(run)
    found = results(small)
    names = [f"iwae-iwae-k2-seed{which}epochs" for which in ("0-13", "0-40", "1-13")]
    assert list(found) == names
    kept = [name for name in names if "weights/decoder/output/bias" in found[name][0]]
    assert kept == names[1:2]
    arrays, scores = found[kept[0]]
    assert arrays["weights/decoder/output/bias"].dtype == np.float16
    assert len(arrays["curve/objective"]) == 40
    model, images = iwae.trained(SMALL[0], 40, half=True), iwae.test_images()
    again, numbers = iwae.score(model)
    assert numbers == scores
    np.testing.assert_array_equal(again["log_evidence"], arrays["log_evidence"])
    assert scores["nll"] == pytest.approx(-arrays["log_evidence"].mean(), rel=1e-6)
    assert scores["nll"] == pytest.approx(-arrays["climb"][-1], rel=1e-6)
    assert (np.diff(arrays["climb"]) > 0).all()
    means = np.asarray(model.encode(jnp.asarray(images))[0], float)
    np.testing.assert_allclose(arrays["variance_of_means"], means.var(axis=0), rtol=1e-4)
    assert scores["active"] == (means.var(axis=0) > 0.01).sum()
    assert scores["bound"] == pytest.approx(
        float(vae.evaluate(model, images, key=jax.random.key(iwae.BOUND)).bound.mean())
    )
    assert scores["bound"] < -scores["nll"]
    # Rounded products are no other model.
    whole = iwae.log_evidence(iwae.trained(SMALL[0], 40), images, (1, 200))[1]
    np.testing.assert_allclose(whole, arrays["log_evidence"], atol=0.5)
    # Training made the images likelier, and the later stage more so.
    nll = {name: scores["nll"] for name, (_, scores) in found.items()}
    untrained = iwae.make_model(0, iwae.train_images().mean(axis=0) / 255)
    first = -iwae.log_evidence(untrained, images, (1, 200))[1].mean()
    assert nll[names[1]] < nll[names[0]] < first

    rows = {row["id"]: row for row in iwae.ledger_rows()}
    assert list(rows) == ["iwae.k2.nll.13epochs", "iwae.k2.nll", "iwae.k2.active"]
    for row in rows.values():
        assert set(row) == set(ledger.COLUMNS)
        ledger.verdict(row)
    longest, shorter = rows["iwae.k2.nll"], rows["iwae.k2.nll.13epochs"]
    assert longest["theirs"] == 86.76 and shorter["theirs"] == ""
    assert longest["why"] == "trained for 40 of the 3,280 epochs"
    assert longest["examples"] == 40 * 40
    assert iwae.check(longest) == pytest.approx(longest["ours"], abs=0.01)
    both = nll[names[0]], nll[names[2]]
    assert shorter["ours"] == round(np.mean(both), 2)
    assert shorter["low"] == round(min(both), 2) != shorter["high"] == round(max(both), 2)
    assert shorter["seeds"] == 2
    with pytest.raises(SystemExit, match="not kept"):
        iwae.check(shorter)


@pytest.mark.parametrize("run", [iwae.Run("vae", 5, 2, seed=3), iwae.Run("iwae", 50, 2, seed=4)])
def test_a_run_trains_as_its_name_says(small, monkeypatch, run):
    asked = {}

    def fit(model, images, **settings):
        asked.update(settings, model=model, images=images)
        raise KeyboardInterrupt

    monkeypatch.setattr(vae, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        iwae.record(run)
    key = jax.random.key_data(jax.random.key(run.seed))
    np.testing.assert_array_equal(jax.random.key_data(asked["key"]), key)
    images = iwae.train_images()
    expected = iwae.make_model(run.seed, images.mean(axis=0) / 255)
    for ours, theirs in zip(
        jax.tree.leaves(nnx.state(asked["model"])),
        jax.tree.leaves(nnx.state(expected)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    rounded = asked["model"].decoder.output.dot_general is precision.half_products
    assert rounded == (run.k == 50)
    assert (asked["epochs"], asked["batch_size"]) == (13, 20) and asked["images"] is images
    assert asked["objective"] is iwae.objective(run.kind, run.k)
    assert asked["optimizer"] is iwae.optimizer(2)
    assert not run.keeps_weights(40)


def test_a_killed_run_goes_on_to_the_same_numbers(small, monkeypatch, tmp_path):
    run = SMALL[0]
    monkeypatch.setattr(iwae, "BLOCK", 4)
    monkeypatch.setattr(runs, "RESULTS", tmp_path / "whole" / "results")
    monkeypatch.setattr(runs, "STATE", tmp_path / "whole" / "state")
    iwae.record(run)
    monkeypatch.setattr(runs, "RESULTS", tmp_path / "killed" / "results")
    monkeypatch.setattr(runs, "STATE", tmp_path / "killed" / "state")
    save, saved = vae.checkpoints.save, []

    def killed_after(count):
        def saving(*arguments):
            if len(saved) == count:
                raise KeyboardInterrupt
            saved.append(arguments[0])
            save(*arguments)

        return saving

    # In training, in the first stage's scores, before its result, in the second stage's scores.
    for count in (1, 4, 5, 10):
        with monkeypatch.context() as patch:
            patch.setattr(vae.checkpoints, "save", killed_after(count))
            with pytest.raises(KeyboardInterrupt):
                iwae.record(run)
    iwae.record(run)
    whole, killed = results(tmp_path / "whole"), results(tmp_path / "killed")
    assert list(whole) == list(killed) and len(whole) == 2
    for name in whole:
        assert whole[name][1] == killed[name][1]
        assert whole[name][0].keys() == killed[name][0].keys()
        for array in whole[name][0]:
            np.testing.assert_array_equal(whole[name][0][array], killed[name][0][array])


# How likely the data is


def test_the_parts_of_the_gap_are_those_of_the_linear_gaussian_model():
    gap = likelihood.split_gap(OFF.model, XS, KEY, 600, 4000)
    # With orthogonal columns the posterior is a diagonal Gaussian: nothing is lost to the family.
    np.testing.assert_allclose(gap["best"], [OFF.evidence(x) for x in XS], atol=0.03)
    np.testing.assert_allclose(gap["encoder"], [OFF.bound(x) for x in XS], atol=0.1)


def test_the_climb_and_the_annealing_are_as_asked_for(monkeypatch):
    climbed = likelihood.climb(OFF.model, XS, KEY, (1, 3000))
    np.testing.assert_allclose(climbed["log_evidence"][-1], [OFF.evidence(x) for x in XS], atol=0.2)
    assert (climbed["standard_error"][-1] < 0.1).all()
    asked = {}

    def annealed(model, x, key, **settings):
        asked.update(settings, shape=x.shape)
        return evidence.ChainEvidence(*jnp.zeros((3, len(x))))

    monkeypatch.setattr(evidence, "annealed_importance_sampling", annealed)
    images = np.zeros((300, 784), np.float32)
    assert likelihood.PARTS["ais1000"](None, images, KEY)["acceptance"].shape == (100,)
    assert asked.pop("shape") == (100, 784)
    assert asked == {"num_temperatures": 1000, "num_chains": 8, "num_leapfrog": 3}
    likelihood.PARTS["ais3000"](None, images, KEY)
    assert asked["num_temperatures"] == 3000


@pytest.fixture
def quick_parts(monkeypatch):
    """Two parts that cost nothing, and how often each was computed."""
    asked = []

    def part(name):
        def compute(model, images, key):
            asked.append(name)
            return {"draw": jax.random.normal(key, (2,)), "size": jnp.array(len(images))}

        return compute

    monkeypatch.setattr(likelihood, "PARTS", {name: part(name) for name in ("climb", "gap")})
    return asked


def test_a_part_is_computed_once_for_the_same_weights(quick_parts, tmp_path):
    arrays, seconds = likelihood.compute(OFF.model, XS, tmp_path)
    assert quick_parts == ["climb", "gap"] and seconds.keys() == {"climb", "gap"}
    assert arrays["climb/size"] == len(XS)
    assert (arrays["climb/draw"] != arrays["gap/draw"]).all()
    (tmp_path / "gap.npz").unlink()  # killed before it was done
    again, _ = likelihood.compute(OFF.model, XS, tmp_path)
    assert quick_parts == ["climb", "gap", "gap"]
    for name in arrays:
        np.testing.assert_array_equal(again[name], arrays[name])
    likelihood.compute(EXACT.model, XS, tmp_path)
    assert quick_parts == ["climb", "gap", "gap", "climb", "gap"]


def test_measures_are_made_of_the_right_images_and_parts():
    rng = np.random.default_rng(1)
    arrays = {
        "climb/log_evidence": rng.normal(-90, 5, (12, likelihood.CLIMB_IMAGES)),
        "ais1000/log_evidence": rng.normal(-90, 5, likelihood.FEW_IMAGES),
        "ais3000/log_evidence": rng.normal(-90, 5, likelihood.FEW_IMAGES),
        "gap/best": rng.normal(-92, 5, likelihood.FEW_IMAGES),
        "gap/encoder": rng.normal(-95, 5, likelihood.FEW_IMAGES),
    }
    found = likelihood.summary(arrays)
    assert found.keys() == likelihood.MEASURES.keys()
    log_p, annealed = arrays["climb/log_evidence"][-1], arrays["ais3000/log_evidence"]
    assert found["nll"] == pytest.approx(-log_p.mean(), abs=1e-3)
    assert found["nll.is_of_ais"] == pytest.approx(-log_p[:100].mean(), abs=1e-3)
    assert found["nll.ais"] == pytest.approx(-annealed.mean(), abs=1e-3)
    assert found["nll.ais_short"] == pytest.approx(-arrays["ais1000/log_evidence"].mean(), abs=1e-3)
    expected = annealed.mean() - arrays["gap/encoder"].mean()
    assert found["gap"] == pytest.approx(expected, abs=1e-3)
    parts = found["gap.approximation"] + found["gap.amortisation"]
    assert found["gap"] == pytest.approx(parts, abs=2e-3)
    assert found["gap.amortisation"] == pytest.approx(
        (arrays["gap/best"] - arrays["gap/encoder"]).mean(), abs=1e-3
    )
    for what, values in likelihood.measured(arrays).items():
        assert len(values) == likelihood.MEASURES[what][0]
    assert likelihood.PARTS.keys() == {name.split("/")[0] for name in arrays}
    needed = {part for _, parts, _ in likelihood.MEASURES.values() for part in parts}
    assert needed == likelihood.PARTS.keys()
    for run in likelihood.MODELS.values():
        assert run in iwae.RUNS and run.keeps_weights(likelihood.EPOCHS)
