"""vae.evaluation's scores of codes: against other libraries, closed forms and known rotations."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mutual_info_score, r2_score
from unit_helpers import DATA_DIM, LATENT_DIM, small_vae, stripes

import vae
from vae import evaluation

RNG = np.random.default_rng(20)
SQUARE = RNG.uniform(-1, 1, (10_000, 2))
GAUSSIANISED = stats.norm.ppf((SQUARE + 1) / 2) + 0.1 * RNG.normal(size=SQUARE.shape)
# A regular grid: two factors that are exactly uncorrelated, of exactly equal variance.
GRID = np.stack(np.meshgrid(*2 * [np.linspace(3.0, 11.0, 40)]), axis=-1).reshape(-1, 2)
# Nothing special: three latents that mix two correlated factors of different scales, and noise.
FACTORS = RNG.normal(size=(400, 2)) @ [[2.0, 0.0], [3.0, 7.0]] + [50.0, -3.0]
CODES = np.tanh(FACTORS @ RNG.normal(size=(2, 3)) / 9) + 0.2 * RNG.normal(size=(400, 3)) + 4.0
PLANE = CODES[:, :2]


def turned(points, degrees):
    """The points, turned counter-clockwise about the origin."""
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ rotation.T


def assert_same_angle(a, b, within):
    """Equal modulo 90 degrees, since -45 and 45 are the same."""
    assert abs((a - b + 45) % 90 - 45) < within, (a, b)


# The calibration: perfect codes, rotated.

ANGLES = [0, 5, 10, 15, 22.5, 30, 45]
MIG_OF_FACTORS = [0.99, 0.67, 0.51, 0.40, 0.27, 0.17, 0.006]
MIG_OF_GAUSSIANISED = [0.60, 0.56, 0.46, 0.38, 0.26, 0.17, 0.006]
SAP_OF_FACTORS = [1.0, 0.98, 0.94, 0.87, 0.71, 0.50, 0.02]


@pytest.mark.parametrize(("degrees", "gap"), [*zip(ANGLES, MIG_OF_FACTORS, strict=True)])
def test_mig_of_rotated_factors(degrees, gap):
    assert abs(evaluation.mig(turned(SQUARE, degrees), SQUARE) - gap) < 0.008


@pytest.mark.parametrize(("degrees", "gap"), [*zip(ANGLES, MIG_OF_GAUSSIANISED, strict=True)])
def test_mig_of_rotated_gaussianised_factors(degrees, gap):
    # The bins span the range, and the extremes of 10,000 Gaussians differ by seed: +- 0.02.
    assert abs(evaluation.mig(turned(GAUSSIANISED, degrees), SQUARE, bins=20) - gap) < 0.025


@pytest.mark.parametrize(("degrees", "gap"), [*zip(ANGLES, SAP_OF_FACTORS, strict=True)])
def test_sap_of_rotated_factors(degrees, gap):
    score = evaluation.sap(turned(SQUARE, degrees), SQUARE)
    # cos^2 - sin^2, but for the sample's own correlation of some 1 / sqrt(n) = 0.01.
    assert abs(score - np.cos(2 * np.deg2rad(degrees))) < 0.025 and abs(score - gap) < 0.025


@pytest.mark.parametrize("degrees", ANGLES)
def test_affine_r2_of_rotated_codes(degrees):
    r2 = evaluation.affine_r2(turned(SQUARE, degrees), SQUARE)
    np.testing.assert_allclose(r2, [1, 1], atol=1e-12)
    r2 = evaluation.affine_r2(turned(GAUSSIANISED, degrees), SQUARE)
    # E[z (2 Phi(z) - 1)] is 1 / sqrt(pi), the variance of a uniform on (-1, 1) is 1 / 3.
    np.testing.assert_allclose(r2, 3 / np.pi / 1.01, atol=0.005)
    np.testing.assert_allclose(r2, evaluation.affine_r2(GAUSSIANISED, SQUARE), rtol=1e-9)


# Other libraries.


def test_affine_r2_is_scikit_learns():
    ours = evaluation.affine_r2(CODES, FACTORS)
    fit = LinearRegression().fit(CODES, FACTORS)
    theirs = r2_score(FACTORS, fit.predict(CODES), multioutput="raw_values")
    assert ours.shape == (2,) and 0.1 < ours.min() < ours.max() < 0.95
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_affine_r2_of_a_test_set_is_scikit_learns(shift):
    (codes, factors), test = (CODES[:300], FACTORS[:300]), (CODES[300:] + shift, FACTORS[300:])
    fit = LinearRegression().fit(codes, factors)
    theirs = r2_score(test[1], fit.predict(test[0]), multioutput="raw_values")
    ours = evaluation.affine_r2(codes, factors, test=test)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert shift == 0 or ours.max() < 0  # worse than the mean: a residual's bias counts


def test_matched_spearman_is_scipys_and_no_other_matching_is_better():
    ours = evaluation.matched_spearman(CODES, FACTORS)
    theirs = np.abs(stats.spearmanr(CODES, FACTORS).statistic[:3, 3:])
    np.testing.assert_allclose(ours.correlations, theirs, atol=1e-12)
    best = max(itertools.permutations(range(3), 2), key=lambda at: theirs[at, [0, 1]].sum())
    assert tuple(ours.latents) == best
    matched = np.zeros_like(theirs, bool)
    matched[best, [0, 1]] = True
    np.testing.assert_allclose(ours.matched, theirs[matched].min())
    np.testing.assert_allclose(ours.cross, theirs[~matched].max())
    assert theirs[matched].min() < theirs[matched].max()
    assert theirs[~matched].mean() < theirs[~matched].max()


def test_ties_have_their_mean_rank():
    codes, factors = np.round(2 * CODES), np.round(FACTORS / 3)
    theirs = np.abs(stats.spearmanr(codes, factors).statistic[:3, 3:])
    ours = evaluation.matched_spearman(codes, factors).correlations
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_matching_is_the_best_and_not_the_greedy_one():
    # Latent 0 is the best of either factor, but only latent 1 could be spared for the first.
    a, b, noise = np.random.default_rng(1).normal(size=(3, 2000))
    codes, factors = np.stack([0.75 * a + 0.66 * b, 0.7 * a + 0.7 * noise], axis=1), [a, b]
    score = evaluation.matched_spearman(codes, np.stack(factors, axis=1))
    assert score.correlations[0].argmax() == 0
    assert score.latents.tolist() == [1, 0]
    assert score.matched == min(score.correlations[1, 0], score.correlations[0, 1])
    assert score.cross == score.correlations[0, 0]


@pytest.mark.parametrize("bins", [2, 7, 20])
def test_mig_is_that_of_scikit_learns_information_in_bins_of_equal_width(bins):
    def label(values):
        width = (values.max() - values.min()) / bins
        return np.minimum(np.floor((values - values.min()) / width), bins - 1)

    gaps = []
    for factor in FACTORS.T:
        second, best = sorted(mutual_info_score(label(factor), label(c)) for c in CODES.T)[1:]
        counts = np.unique(label(factor), return_counts=True)[1]
        gaps.append((best - second) / stats.entropy(counts))
    ours = evaluation.mig(CODES, FACTORS, bins=bins)
    np.testing.assert_allclose(ours, np.mean(gaps), rtol=1e-9)
    assert ours > 0.01


def test_mig_is_one_when_a_latent_says_all_whatever_else_it_says():
    # The latent has eight values, the factor two: the entropies differ by a factor of three.
    latent = np.tile(np.arange(8.0), 100)
    factor = (latent >= 4).astype(float)[:, None]
    codes = np.stack([latent, np.repeat([0.0, 1.0], 400)], axis=1)
    np.testing.assert_allclose(evaluation.mig(codes, factor, bins=8), 1, atol=1e-12)


def test_sap_is_the_gap_of_two_straight_lines():
    scores = np.array(
        [
            [LinearRegression().fit(c[:, None], f).score(c[:, None], f) for f in FACTORS.T]
            for c in CODES.T
        ]
    )
    third, second, best = np.sort(scores, axis=0)
    np.testing.assert_allclose(evaluation.sap(CODES, FACTORS), np.mean(best - second), rtol=1e-9)
    assert (third < second).all()


def test_procrustes_is_one_minus_the_squared_nuclear_norm():
    a, b = (points - points.mean(axis=0) for points in (PLANE, FACTORS))
    kept = np.linalg.svd(a.T @ b, compute_uv=False).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    distance = evaluation.procrustes_distance(PLANE, FACTORS)
    np.testing.assert_allclose(distance, 1 - kept**2, rtol=1e-9)
    assert 0.1 < distance < 0.9


# The angle.


@pytest.mark.parametrize("degrees", [-44, -30, -0.5, 0, 0.5, 20, 44, 45])
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_the_angle_of_a_turned_grid_is_recovered(degrees, swap, signs):
    codes = turned(GRID - 7, degrees) * signs
    angle = evaluation.rotation_angle(codes[:, ::-1] if swap else codes, GRID)
    assert_same_angle(angle, degrees, within=1e-6)
    if degrees < 45:  # there, rounding decides between the two ends
        assert abs(angle - degrees) < 1e-6


@pytest.mark.parametrize("degrees", [-40, -20, -5, 10, 30])
def test_the_angle_of_noisy_gaussianised_codes_is_recovered(degrees):
    angle = evaluation.rotation_angle(turned(GAUSSIANISED, degrees), SQUARE)
    assert abs(angle - degrees) < 0.5


def test_turning_the_codes_to_the_left_gives_plus():
    # In words: the latent along the first factor turns towards the second one.
    codes = np.stack([GRID[:, 0] - 0.1 * GRID[:, 1], GRID[:, 1] + 0.1 * GRID[:, 0]], axis=1)
    angle = evaluation.rotation_angle(codes, GRID)
    np.testing.assert_allclose(angle, np.degrees(np.arctan(0.1)), rtol=1e-6)


@given(st.floats(-400, 400), st.floats(0.01, 100), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_angle_is_read_modulo_90_degrees(degrees, scale, flip):
    codes = scale * turned(GRID, degrees) + 3.0
    if flip:
        codes[:, 1] *= -1
    angle = evaluation.rotation_angle(codes, GRID)
    assert -45 < angle <= 45
    assert_same_angle(angle, degrees, within=1e-5)


def test_half_a_right_angle_is_never_minus_45():
    # Rounding puts about one in forty of these on -45 itself, which is outside.
    rng = np.random.default_rng(3)
    for degrees in 250 * [45, -45]:
        codes = rng.uniform(0.1, 10) * turned(GRID, degrees) + rng.normal()
        angle = evaluation.rotation_angle(codes, GRID)
        assert -45 < angle <= 45


@pytest.mark.parametrize("shear", [-1.0, 0.3, 2.0])
def test_a_sheared_code_is_half_turned(shear):
    # One latent stays, the other turns by atan(shear) to the right: the nearest pair of axes
    # shares the error.
    codes = np.stack([GRID[:, 0] + shear * GRID[:, 1], GRID[:, 1]], axis=1)
    half = -np.degrees(np.arctan(shear)) / 2
    assert_same_angle(evaluation.rotation_angle(codes, GRID), half, within=1e-6)
    scores = evaluation.score_code(codes, GRID)
    assert scores.unfolded and not scores.aligned
    np.testing.assert_allclose(scores.correlation, abs(shear) / np.hypot(1, shear), rtol=1e-6)


def test_correlated_factors_do_not_bend_the_angle():
    factors = GRID @ [[1.0, 0.8], [0.0, 0.6]]
    factors = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    assert abs(np.corrcoef(factors.T)[0, 1]) > 0.5
    for degrees in (-35, 10, 30):
        angle = evaluation.rotation_angle(turned(factors, degrees), factors)
        np.testing.assert_allclose(angle, degrees, atol=1e-6)


def test_two_latents_that_say_the_same_have_no_angle():
    same = np.stack([SQUARE @ [1, 2], SQUARE @ [-3, -6]], axis=1)
    assert np.isnan(evaluation.rotation_angle(same, SQUARE))
    assert evaluation.affine_r2(same, SQUARE).sum() == pytest.approx(1, abs=0.03)


# Codes with a fault.


def test_a_perfect_code_has_perfect_scores():
    scores = evaluation.score_code(GRID * [-2, 3] + 1, GRID)
    assert scores.affine_r2 == pytest.approx(1) and scores.matched == pytest.approx(1)
    assert scores.cross == pytest.approx(0, abs=1e-9) and scores.sap == pytest.approx(1)
    assert scores.mig == pytest.approx(1) and scores.angle == pytest.approx(0, abs=1e-6)
    assert scores.active == 2 and scores.unfolded and scores.aligned


@pytest.mark.parametrize("value", [0.0, 0.1, -7e8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("error")
def test_a_dead_latent_scores_zero_and_no_score_is_nan(value, dtype):
    codes = np.stack([SQUARE[:, 0], np.full(10_000, value)], axis=1).astype(dtype)
    factors = SQUARE.astype(dtype)
    codes[::3, 1] = np.nextafter(codes[::3, 1], dtype(np.inf))  # as rounding leaves it
    with np.errstate(all="raise", under="ignore"):
        scores = evaluation.score_code(codes, factors)
        matching = evaluation.matched_spearman(codes, factors)
        r2 = evaluation.affine_r2(codes, factors, test=(codes[:50], factors[:50]))
    np.testing.assert_array_equal(matching.correlations[1], [0, 0])
    assert scores.active == 1 and scores.correlation == scores.matched == 0
    assert np.isnan(scores.angle)
    assert scores.affine_r2 == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(r2, [1, 0], atol=0.1)
    # The other factor's gap is whole: one half, which a rotation would give too.
    assert scores.mig == pytest.approx(0.5, abs=0.01)
    assert scores.sap == pytest.approx(0.5, abs=0.01)
    assert scores.procrustes == pytest.approx(0.5, abs=0.02)
    assert not scores.unfolded and not scores.aligned


@pytest.mark.filterwarnings("error")
def test_two_dead_latents_score_nothing_at_all():
    scores = evaluation.score_code(np.full((100, 2), 0.3), SQUARE[:100])
    others = dataclasses.asdict(scores)
    assert others.pop("procrustes") == 1 and np.isnan(others.pop("angle"))
    np.testing.assert_allclose(list(others.values()), 0, atol=1e-12)


def test_a_quiet_latent_is_not_a_dead_one():
    # A thousandth of a thousandth, far from zero: small, but it says everything.
    codes = turned(SQUARE, 20)
    quiet = codes * [1, 1e-6] + [0, 5]
    for score in (evaluation.affine_r2, evaluation.sap, evaluation.mig, evaluation.rotation_angle):
        np.testing.assert_allclose(score(quiet, SQUARE), score(codes, SQUARE), rtol=1e-6)
    assert evaluation.active_units(quiet).tolist() == [True, False]


def test_a_fold_is_seen_by_r2_and_hardly_by_mig():
    codes = np.abs(SQUARE) * [1, 0] + SQUARE * [0, 1]
    scores = evaluation.score_code(codes, SQUARE)
    np.testing.assert_allclose(evaluation.affine_r2(codes, SQUARE), [0, 1], atol=0.002)
    assert scores.affine_r2 < 0.002 and not scores.unfolded
    assert scores.matched < 0.05 and not scores.aligned
    # Only one bit is lost of one of the two factors.
    np.testing.assert_allclose(scores.mig, 1 - np.log(2) / np.log(20) / 2, atol=0.01)
    assert scores.sap == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("shape", ["disc", "square"])
def test_radius_and_angle_are_no_affine_code(shape):
    factors = SQUARE[np.hypot(*SQUARE.T) < 1] if shape == "disc" else SQUARE
    radius, angle = np.hypot(*factors.T), np.arctan2(*factors.T[::-1])
    scores = evaluation.score_code(np.stack([radius, angle], axis=1), factors)
    # x = r cos(angle) is even in the angle and, at any radius, zero on average.
    assert scores.affine_r2 < 0.02 and not scores.unfolded
    assert scores.matched < 0.1 and not scores.aligned
    # y = r sin(angle) does grow with the angle, on the whole, so that these two are matched; and
    # x is left with the radius, which knows nothing of it.
    assert abs(stats.spearmanr(angle, factors[:, 1]).statistic) > 0.7 and scores.cross < 0.1
    assert scores.procrustes > 0.3


def test_noise_lowers_the_scores_as_it_should():
    noise = np.random.default_rng(2).normal(size=SQUARE.shape)
    for std in (0.2, 1.0):
        share = (1 / 3) / (1 / 3 + std**2)  # of the factors' variance in that of the codes
        scores = evaluation.score_code(SQUARE + std * noise, SQUARE)
        np.testing.assert_allclose([scores.affine_r2, scores.sap], share, atol=0.03)
    scores = evaluation.score_code(noise, SQUARE)
    assert scores.affine_r2 < 0.002 and scores.procrustes > 0.99 and scores.mig < 0.005
    assert max(scores.matched, scores.cross, scores.sap, scores.correlation) < 0.05
    assert scores.active == 2 and not scores.unfolded and not scores.aligned


# What a score must not depend on.

scales = st.floats(0.01, 100)
shifts = st.floats(-10, 10)


@given(st.lists(shifts, min_size=9, max_size=9), shifts, scales)
@settings(max_examples=40, deadline=None)
def test_affine_maps_of_the_codes_leave_affine_r2(entries, shift, scale):
    matrix = scale * (np.reshape(entries, (3, 3)) / 40 + np.eye(3))  # diagonally dominant
    moved = evaluation.affine_r2(CODES @ matrix + shift, FACTORS / scale - shift)
    np.testing.assert_allclose(moved, evaluation.affine_r2(CODES, FACTORS), rtol=1e-6)


@given(st.floats(-360, 360), st.booleans(), shifts, scales)
@settings(max_examples=40, deadline=None)
def test_similarities_leave_the_procrustes_distance(degrees, reflect, shift, scale):
    moved = scale * turned(PLANE, degrees) * [1, -1 if reflect else 1] + shift
    distance = evaluation.procrustes_distance(moved, FACTORS)
    np.testing.assert_allclose(distance, evaluation.procrustes_distance(PLANE, FACTORS), rtol=1e-6)
    assert evaluation.procrustes_distance(moved, PLANE) < 1e-9


def test_other_maps_do_not_leave_the_procrustes_distance():
    assert evaluation.procrustes_distance(GRID * [1, 3], GRID) > 0.1
    assert evaluation.procrustes_distance(GRID @ [[1, 0.5], [0, 1]], GRID) > 0.05


@given(st.permutations(range(3)), st.tuples(*3 * [st.sampled_from([1.0, -1.0])]), shifts, scales)
@settings(max_examples=40, deadline=None)
def test_order_signs_and_scales_of_the_latents_do_not_matter(order, signs, shift, scale):
    moved = (CODES * signs * [scale, 1.0, 1 / scale] + shift)[:, order]
    for score in (evaluation.mig, evaluation.sap, evaluation.affine_r2):
        np.testing.assert_allclose(score(moved, FACTORS), score(CODES, FACTORS), rtol=1e-6)
    before, after = (evaluation.matched_spearman(codes, FACTORS) for codes in (CODES, moved))
    np.testing.assert_allclose(after[:2], before[:2], rtol=1e-9)
    np.testing.assert_allclose(after.correlations, before.correlations[order], rtol=1e-9)
    assert [order[i] for i in after.latents] == before.latents.tolist()


def test_monotone_maps_leave_the_rank_correlations():
    bent = np.stack([np.exp(CODES[:, 0]), -(CODES[:, 1] ** 3), CODES[:, 2]], axis=1)
    before = evaluation.matched_spearman(CODES, FACTORS)
    after = evaluation.matched_spearman(bent, np.arctan(FACTORS / 9))
    np.testing.assert_allclose(after.correlations, before.correlations, atol=1e-9)


@given(st.permutations(range(2)), st.tuples(*2 * [st.sampled_from([1.0, -1.0])]), shifts, scales)
@settings(max_examples=40, deadline=None)
def test_order_signs_and_scales_leave_the_angle(order, signs, shift, scale):
    moved = (PLANE * signs * [scale, 1 / scale] + shift)[:, order]
    angle = evaluation.rotation_angle(PLANE, FACTORS)
    assert_same_angle(evaluation.rotation_angle(moved, FACTORS), angle, within=1e-5)
    # Mirrored factors, though, mirror the angle.
    mirrored = evaluation.rotation_angle(moved, FACTORS * [1, -1])
    assert_same_angle(mirrored, -angle, within=1e-5)
    assert abs(angle) > 1


@pytest.mark.parametrize("convert", [jnp.asarray, lambda a: np.asarray(a, np.float32)])
def test_jax_arrays_and_single_precision_do(convert):
    expected = dataclasses.astuple(evaluation.score_code(PLANE, FACTORS))
    scores = evaluation.score_code(convert(PLANE), convert(FACTORS))
    # A value that moves over the edge of a bin is worth some 1 / n.
    np.testing.assert_allclose(dataclasses.astuple(scores), expected, rtol=1e-4, atol=5e-3)
    kinds = [type(value) for value in dataclasses.astuple(scores)]
    assert kinds == 8 * [float] + [int]
    assert type(scores.unfolded) is type(scores.aligned) is bool


# All of them at once.


def test_score_code_holds_the_single_scores():
    scores = evaluation.score_code(PLANE, FACTORS, bins=7)
    matching = evaluation.matched_spearman(PLANE, FACTORS)
    r2 = evaluation.affine_r2(PLANE, FACTORS)
    assert r2[0] != r2[1] and scores.affine_r2 == r2.min()
    assert scores.procrustes == evaluation.procrustes_distance(PLANE, FACTORS)
    assert (scores.matched, scores.cross) == matching[:2]
    assert scores.mig == evaluation.mig(PLANE, FACTORS, bins=7) != evaluation.mig(PLANE, FACTORS)
    assert scores.sap == evaluation.sap(PLANE, FACTORS)
    assert scores.angle == evaluation.rotation_angle(PLANE, FACTORS)
    assert scores.correlation == pytest.approx(abs(np.corrcoef(PLANE.T)[0, 1]))
    assert evaluation.score_code(PLANE * [1, -1], FACTORS).correlation > 0
    assert scores.active == evaluation.active_units(PLANE).sum() == 2


@pytest.mark.parametrize(
    ("changes", "unfolded", "aligned"),
    [
        ({}, True, True),
        ({"affine_r2": 0.9499}, False, True),
        ({"matched": 0.9499}, True, False),
        ({"cross": 0.2501}, True, False),
    ],
)
def test_the_verdicts_begin_at_their_thresholds(changes, unfolded, aligned):
    values = dict.fromkeys((f.name for f in dataclasses.fields(evaluation.CodeScores)), 0.0)
    values |= {"affine_r2": 0.95, "matched": 0.95, "cross": 0.25} | changes
    scores = evaluation.CodeScores(**values)
    assert (scores.unfolded, scores.aligned) == (unfolded, aligned)
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.cross = 0.0


def test_a_unit_is_active_by_its_variance():
    # Standard deviations of 0.05 and 0.2: variances of 0.0025 and 0.04.
    waves = np.tile([-1.0, 1.0], 50)[:, None] * [0.0, 0.05, 0.2, 3.0] + [9.0, 0.0, 0.0, -2.0]
    assert evaluation.active_units(waves).tolist() == [False, False, True, True]
    assert evaluation.active_units(waves, threshold=0.002).tolist() == [False, True, True, True]
    assert evaluation.active_units(waves, threshold=0.05).tolist() == [False, False, False, True]
    exact = np.array([[-0.5], [0.5]])
    assert not evaluation.active_units(exact, threshold=0.25)  # above, not at
    assert evaluation.active_units(exact, threshold=0.2499)


# From a model.


def small_autoencoder():
    rngs = nnx.Rngs(0)
    encoder = vae.MLPEncoder(DATA_DIM, 8, LATENT_DIM, rngs=rngs)
    return vae.Autoencoder(encoder, vae.MLPDecoder(LATENT_DIM, 8, DATA_DIM, rngs=rngs))


MODELS = {
    "VAE": small_vae(),
    "Gaussian": small_vae(likelihood=vae.Gaussian(std=0.3)),
    "Autoencoder": small_autoencoder(),
}
IMAGES = stripes(23)
X = jnp.asarray(IMAGES / 255, jnp.float32)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_size", [1, 10, 23, 1000])
def test_the_code_is_the_encoders_mean(name, batch_size):
    model = MODELS[name]
    codes = evaluation.code_of(model, IMAGES, batch_size=batch_size)
    assert isinstance(codes, np.ndarray) and codes.shape == (23, LATENT_DIM)
    np.testing.assert_allclose(codes, model.encoder(X)[0], rtol=1e-4, atol=1e-6)
    assert np.unique(codes, axis=0).shape[0] > 10


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_size", [10, 1000])
def test_the_reconstruction_error_is_the_squared_error_of_the_mean_image(name, batch_size):
    model = MODELS[name]
    output = np.float64(model.decoder(model.encoder(X)[0]))
    image = output if name == "Gaussian" else 1 / (1 + np.exp(-output))
    by_hand = np.square(IMAGES / 255 - image).sum(axis=1)
    errors = evaluation.reconstruction_error(model, IMAGES, batch_size=batch_size)
    assert isinstance(errors, np.ndarray) and errors.shape == (23,)
    np.testing.assert_allclose(errors, by_hand, rtol=1e-4)


def test_levels_and_intensities_have_the_same_codes_and_errors():
    model = MODELS["VAE"]
    for images in (X, IMAGES / 255, np.asarray(X), (IMAGES / 255).tolist()):
        for score in (evaluation.code_of, evaluation.reconstruction_error):
            np.testing.assert_allclose(score(model, images), score(model, IMAGES), atol=1e-5)


def test_a_models_code_can_be_scored():
    codes = evaluation.code_of(MODELS["Autoencoder"], IMAGES)
    bright = IMAGES.astype(np.float64)[:, [0, 5]]
    assert evaluation.affine_r2(codes, bright).max() > 0.5
    assert np.isfinite(evaluation.score_code(codes, bright).mig)


# What is refused.

SCORES = [
    evaluation.affine_r2,
    evaluation.procrustes_distance,
    evaluation.matched_spearman,
    evaluation.mig,
    evaluation.sap,
    evaluation.rotation_angle,
    evaluation.score_code,
]
FEW = SQUARE[:9]


def with_entry(value):
    bad = FEW.copy()
    bad[4, 1] = value
    return bad


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.__name__)
@pytest.mark.parametrize(
    ("codes", "factors", "error", "message"),
    [
        (with_entry(np.nan), FEW, ValueError, "codes must be finite, got 1 NaN"),
        (FEW, with_entry(np.inf), ValueError, "factors must be finite, got 1 NaN"),
        (FEW, SQUARE[:8], ValueError, "codes and factors .* same examples, got 9 and 8"),
        (SQUARE[:3], SQUARE[:3], ValueError, "codes must be of at least 4 examples, got 3"),
        (FEW[:, 0], FEW, ValueError, r"codes must have shape \(n, columns\), got \(9,\)"),
        (FEW, FEW[:, :0], ValueError, r"factors must have shape .* got \(9, 0\)"),
        (FEW.tolist(), FEW, TypeError, "codes must be an array, got list"),
        (FEW, np.arange(18).reshape(9, 2), TypeError, "factors must hold floating-point"),
        (FEW, FEW * [1, 0] + 0.1, ValueError, r"factors must all vary, but columns \[1\]"),
    ],
)
def test_no_score_of_what_has_none(score, codes, factors, error, message):
    with pytest.raises(error, match=message):
        score(codes, factors)


THREE = CODES[:9]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: evaluation.procrustes_distance(THREE, FEW), ValueError, "codes .* dimension of 2"),
        (lambda: evaluation.rotation_angle(THREE, FEW), ValueError, "codes .* dimension of 2"),
        (lambda: evaluation.rotation_angle(FEW, THREE), ValueError, "factors .* dimension of 2"),
        (lambda: evaluation.score_code(THREE, THREE), ValueError, "codes .* dimension of 2"),
        (lambda: evaluation.matched_spearman(FEW, THREE), ValueError, "3 factors, got 2 latents"),
        (lambda: evaluation.mig(FEW[:, :1], FEW), ValueError, "at least 2 latents, got 1"),
        (lambda: evaluation.sap(FEW[:, :1], FEW), ValueError, "at least 2 latents, got 1"),
        (lambda: evaluation.mig(FEW, FEW, bins=1), ValueError, "bins must be at least 2, got 1"),
        (lambda: evaluation.mig(FEW, FEW, bins=2.5), TypeError, "bins must be a whole number"),
        (lambda: evaluation.active_units(FEW[:1]), ValueError, "means .* 2 examples, got 1"),
        (lambda: evaluation.active_units(with_entry(np.nan)), ValueError, "means must be finite"),
        (lambda: evaluation.active_units(FEW, threshold=-1), ValueError, "threshold must be"),
        (lambda: evaluation.affine_r2(FEW, FEW, test=FEW), TypeError, "test must be a pair"),
        (
            lambda: evaluation.affine_r2(FEW, FEW, test=(FEW, FEW[:8])),
            ValueError,
            "test codes and test factors .* got 9 and 8",
        ),
        (
            lambda: evaluation.affine_r2(FEW, FEW, test=(with_entry(np.nan), FEW)),
            ValueError,
            "test codes must be finite",
        ),
        (
            lambda: evaluation.affine_r2(FEW, FEW, test=(FEW, np.ones((9, 2)))),
            ValueError,
            "test factors must all vary",
        ),
        (
            lambda: evaluation.affine_r2(FEW, FEW, test=(THREE, FEW)),
            ValueError,
            "test codes must have a last dimension of 2",
        ),
        (
            lambda: evaluation.affine_r2(FEW, FEW, test=(FEW, THREE)),
            ValueError,
            "test factors must have a last dimension of 2",
        ),
        (lambda: evaluation.code_of(MODELS["VAE"], X[:, :5]), ValueError, "images .* of 6"),
        (lambda: evaluation.code_of(MODELS["VAE"], X * 3), ValueError, "images must lie in"),
        (lambda: evaluation.code_of(MODELS["VAE"], X, batch_size=0), ValueError, "batch_size"),
        (lambda: evaluation.reconstruction_error(MODELS["VAE"], X[0]), ValueError, "images must"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_one_factor_and_one_latent_have_no_other_pair():
    score = evaluation.matched_spearman(FEW[:, :1], FEW[:, :1])
    assert score.matched == pytest.approx(1) and score.cross == 0


def test_nothing_here_is_traced():
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(evaluation.sap)(jnp.asarray(FEW), jnp.asarray(FEW))
