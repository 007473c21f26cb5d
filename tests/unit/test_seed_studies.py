"""Circles and pendulum over many seeds: the recipes, the regions, and what was recorded."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from experiments import circles, ledger, pendulum, runs, seeds
from experiments.recipes import Recipe, out_of_focus
from scipy import ndimage

import vae

KEY = jax.random.key(0)


# Recipes


def test_beta_is_held_then_falls_geometrically_to_one():
    recipe = Recipe(10, 100, 1e-3, beta=16.0, hold=0.4, cool=0.8)
    assert [float(recipe.beta_at(t)) for t in (0.0, 0.4, 0.6, 0.8, 1.0)] == pytest.approx(
        [16, 16, 4, 1, 1], rel=1e-5
    )
    plain = dataclasses.replace(recipe, beta=1.0)
    assert float(plain.beta_at(0.1)) == 1


def test_the_blur_is_held_then_falls_linearly_to_zero():
    recipe = Recipe(10, 100, 1e-3, blur=4.0, focus=(0.2, 0.6))
    assert [float(recipe.blur_at(t)) for t in (0.0, 0.2, 0.3, 0.6, 1.0)] == pytest.approx(
        [4, 4, 3, 0, 0]
    )


def test_the_rate_is_flat_then_falls_to_zero():
    recipe = Recipe(10, 100, 1e-2, flat=0.5)
    optimizer = recipe.optimizer(1000)  # 100 steps
    params = jnp.zeros(())
    state, sizes = optimizer.init(params), []
    for _ in range(100):
        update, state = optimizer.update(jnp.ones(()), state, params)
        sizes.append(-float(update))  # Adam's step under a constant gradient is the rate
    assert recipe.steps(1050) == 100
    np.testing.assert_allclose(sizes[:50], 1e-2, rtol=1e-3)
    expected = 1e-2 * (1 + np.cos(np.pi * np.arange(50) / 50)) / 2
    np.testing.assert_allclose(sizes[50:], expected, rtol=1e-3, atol=1e-6)


def small(seed):
    rngs = jax.nn.relu, vae.networks.nnx.Rngs(seed)
    return vae.VAE(
        vae.MLPEncoder(784, 8, 2, rngs=rngs[1], activation=rngs[0]),
        vae.MLPDecoder(2, 8, 784, rngs=rngs[1], activation=rngs[0]),
    )


def test_in_focus_it_is_the_beta_objective():
    x = jnp.asarray(vae.datasets.circles(KEY, 5).images / np.float32(255))
    model = small(0)
    expected = vae.beta_objective(model, x, KEY, beta=3.0)
    for got, value in zip(out_of_focus(model, x, KEY, beta=3.0), expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-5)


def test_out_of_focus_the_model_sees_blurred_pictures_as_bright_as_before():
    image = vae.datasets.circles(KEY, 1, width=1.5).images / np.float32(255)
    blurred = ndimage.gaussian_filter(
        image.reshape(28, 28).astype(float), 2.0, mode="constant", truncate=8
    )
    expected = (blurred / blurred.max()).reshape(1, 784).astype(np.float32)
    model = small(1)
    got = out_of_focus(model, jnp.asarray(image), KEY, beta=2.0, blur=2.0)
    wanted = vae.beta_objective(model, jnp.asarray(expected), KEY, beta=2.0)
    np.testing.assert_allclose(got.objective, wanted.objective, rtol=1e-4)
    sharp = vae.beta_objective(model, jnp.asarray(image), KEY, beta=2.0)
    assert abs(got.objective - sharp.objective) > 1


def test_a_recipe_trains_each_kind_of_model_with_its_objective(monkeypatch):
    called = {}
    monkeypatch.setattr(vae, "fit_many", lambda models, images, **kw: called.update(kw) or [])
    images = np.zeros((200, 784), np.uint8)
    hot = Recipe(2, 100, 1e-3, beta=4.0, blur=2.0)
    hot.train([small(0)], images, KEY)
    assert called["objective"] is out_of_focus and set(called["schedules"]) == {"beta", "blur"}
    assert float(called["schedules"]["beta"](0)) == pytest.approx(4)
    assert float(called["schedules"]["beta"](4)) == 1  # two epochs of two steps
    dataclasses.replace(hot, blur=0.0).train([small(0)], images, KEY)
    assert called["objective"] is vae.beta_objective and set(called["schedules"]) == {"beta"}
    plain = small(0)
    hot.train([vae.Autoencoder(plain.encoder, plain.decoder)], images, KEY)
    assert called["objective"] is vae.reconstruction and not called["schedules"]
    assert isinstance(called["optimizer"], optax.GradientTransformation)


# Regions


@pytest.mark.parametrize("region", [circles.rectangle, circles.turned, circles.disc])
def test_every_circle_of_a_region_is_whole(region):
    centers = np.asarray(region(jax.random.uniform(KEY, (20_000, 2))))
    assert centers.min() >= 5.5 - 1e-3 and centers.max() <= 21.5 + 1e-3
    np.testing.assert_allclose(centers.mean(axis=0), 13.5, atol=0.15)


def test_the_regions_have_their_shapes():
    u = jax.random.uniform(KEY, (20_000, 2))
    spread = np.ptp(np.asarray(circles.rectangle(u)), axis=0)
    np.testing.assert_allclose(spread[0] / spread[1], 3, rtol=0.01)
    radii = np.linalg.norm(np.asarray(circles.disc(u)) - 13.5, axis=1)
    np.testing.assert_allclose(np.mean(radii**2), 32, rtol=0.02)  # uniform in area: half of 8^2
    corner = np.asarray(circles.turned(jnp.array([[1.0, 0.5]])))[0] - 13.5  # right of the middle
    # Counter-clockwise as seen: the right side goes up, and up is a smaller row.
    np.testing.assert_allclose(np.degrees(np.arctan2(-corner[1], corner[0])), 30, atol=1e-3)


def test_a_study_draws_what_it_says():
    images, centers = circles.STUDIES["rectangle-hot"].data(KEY, 20)
    np.testing.assert_array_equal(
        images, np.rint(255 * np.asarray(vae.datasets.draw_circles(centers))).astype(np.uint8)
    )
    rings = circles.STUDIES["rings-hot"].data(KEY, 20)[0]
    assert rings.mean() < circles.STUDIES["hot"].data(KEY, 20)[0].mean()
    assert circles.STUDIES["radius9-hot"].data(KEY, 20)[0].mean() > 200 / 784 * 255


# What was recorded


STUDIES = [(module, name) for module in (circles, pendulum) for name in module.STUDIES]


@pytest.mark.parametrize("module, name", STUDIES, ids=[f"{m.NAME}-{n}" for m, n in STUDIES])
def test_a_recorded_study_says_where_it_comes_from_and_keeps_every_seed(module, name):
    arrays, metadata = runs.read_result(f"{module.NAME}-{name}")
    assert metadata["commit"] and not metadata["commit"].endswith("+changes")
    assert metadata["seeds"] == list(seeds.SEEDS) and len(seeds.SEEDS) == 16
    study = module.STUDIES[name]
    stored = metadata["recipe"]
    stored["focus"] = tuple(stored["focus"])
    assert Recipe(**stored) == study.recipe and metadata["what"] == study.what
    assert metadata["command"].endswith(f"--full --only {name}") and metadata["seconds"] > 0
    latents = getattr(study, "latents", 2)
    assert arrays["codes"].shape == (16, module.TEST, latents)
    assert arrays["path/affine_r2"].shape == (16, study.recipe.epochs)
    assert np.isfinite(arrays["codes"]).all() and np.isfinite(arrays["error"]).all()
    # No two seeds are the same run.
    assert len({code.tobytes() for code in arrays["codes"]}) == 16


@pytest.mark.parametrize("module", [circles, pendulum], ids=["circles", "pendulum"])
def test_the_ledger_holds_what_the_recorded_codes_say(module):
    rows = module.ledger_rows()
    assert rows
    for row in rows:
        full = ledger.OPTIONAL | row
        assert ledger.row(row["id"]) == {name: str(value) for name, value in full.items()}
        assert module.check(row) == pytest.approx(row["ours"], abs=1e-4)


def test_the_codes_belong_to_the_test_pictures():
    """The last point of the path is the score of the first thousand recorded codes."""
    for name in ("hot", "rings-focused", "turned-hot"):
        arrays = runs.read_result(f"circles-{name}")[0]
        centers = circles.test_data(name)[1][: seeds.FOLLOWED]
        for codes, last in zip(arrays["codes"], arrays["path/affine_r2"][:, -1], strict=True):
            codes = codes[: seeds.FOLLOWED].astype(float)
            again = vae.evaluation.affine_r2(codes, centers).min()
            assert again == pytest.approx(last, abs=2e-3)  # half precision


def test_the_experiments_reach_what_the_book_promises():
    counts = {
        "circles.vae.seeds_affine_r2_0.95": 16,
        "circles.vae.seeds_spearman_0.95": 15,
        "circles.rings.seeds_affine_r2_0.95": 12,
        "circles.rectangle.seeds_angle_10deg": 14,
        "pendulum.r2.sin": 0.98,
        "pendulum.r2.cos": 0.98,
        "pendulum.noisy.active_units": 2,
    }
    for id, least in counts.items():
        assert float(ledger.row(id)["ours"]) >= least, id
