"""What do the codes of a model hold: scores against the factors that the images were made from.

Codes are (n, d), factors (n, k), both of a floating dtype, NumPy or JAX; n is at least d + 2. All
scores are computed on the host in float64. A factor that never changes has no score: ValueError. A
latent that never changes (a dead one, constant to the rounding of its dtype) is no error: it
correlates with nothing and shares no information. No score is NaN for it, `rotation_angle` alone.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vae import checks
from vae.evaluation.bounds import as_intensities, check_images

UNFOLDED_R2 = 0.95  # a code with at least this affine R^2 of each factor is unfolded
ALIGNED_MATCHED = 0.95  # aligned: each factor has a latent with at least this |Spearman| ...
ALIGNED_CROSS = 0.25  # ... and no other pair has more than this
_ROUNDINGS = 8  # a dead latent's values differ by at most so many of its dtype's


def code_of(model, images, *, batch_size: int = 1000) -> np.ndarray:
    """The code of each image: the mean of q(z|x) for a VAE, what `encode` returns otherwise.

    Shapes: images (n, data_dim), uint8 levels or floating-point intensities; returns (n, d).
    Raises TypeError or ValueError for images that do not fit the model. Part of
    book/foundations/autoencoders.md, equation `eq-autoencoder`.
    """
    images = check_images(model, images)
    batch_size = min(checks.positive_int("batch_size", batch_size), len(images))
    return np.asarray(_over_images(*nnx.split(model), images, _code, batch_size))


def reconstruction_error(model, images, *, batch_size: int = 1000) -> np.ndarray:
    """Squared error of the mean image decoded at the code of each image, summed over the pixels.

    Shapes: images (n, data_dim) as in `code_of`; returns (n,), in squared intensities, where
    white is 1. Raises as `code_of`. Derived in book/foundations/autoencoders.md, equation
    `eq-squared-error`.
    """
    images = check_images(model, images)
    batch_size = min(checks.positive_int("batch_size", batch_size), len(images))
    return np.asarray(_over_images(*nnx.split(model), images, _squared_error, batch_size))


def _code(model, x):
    code = model.encode(x)
    return code[0] if isinstance(code, tuple) else code


def _squared_error(model, x):
    return jnp.sum((x - model.decode(_code(model, x))) ** 2, axis=-1)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _over_images(graphdef, state, images, function, batch_size):
    """function(model, x) of each image, for batch_size of them at a time."""
    model = nnx.merge(graphdef, state)

    def one_image(image):
        return function(model, as_intensities(image)[None])[0]

    return jax.lax.map(one_image, images, batch_size=batch_size)


def affine_r2(codes, factors, *, test=None) -> np.ndarray:
    """R^2 of each factor, predicted by least squares from the codes and a constant.

    One minus the squared residual over the squared distance from the mean. At most 1, and at
    least 0 on the examples of the fit; unchanged by any invertible affine map of the codes. With
    test=(codes, factors), the fit is scored on those instead, where it may be negative.
    Shapes: codes (n, d), factors (n, k); returns (k,). Derived in book/reproducing/circles.md,
    equation `eq-affine-r2`.
    """
    codes, factors = _check_pair(codes, factors)
    center, scale = codes.mean(axis=0), _spread(codes)

    def design(codes):
        return np.column_stack([(codes - center) / scale, np.ones(len(codes))])

    weights = np.linalg.lstsq(design(codes), factors)[0]
    if test is not None:
        codes, factors = _check_test(test, codes.shape[1], factors.shape[1])
    residual = factors - design(codes) @ weights
    return 1 - np.sum(residual**2, axis=0) / np.sum((factors - factors.mean(axis=0)) ** 2, axis=0)


def procrustes_distance(codes, factors) -> float:
    """What is left between codes and factors after the best shift, rotation and scaling.

    Both are centred and brought to unit norm first. 0 for a copy that was shifted, rotated,
    reflected and scaled alike in all directions; at most 1. It is `scipy.spatial.procrustes`'s
    disparity, and 1 when all latents are dead.
    Shapes: codes and factors (n, d). Derived in book/reproducing/circles.md, equation
    `eq-procrustes`; Gower 1975.
    """
    from scipy.spatial import procrustes

    codes, factors = _check_pair(codes, factors)
    checks.last_dimension("codes", codes, factors.shape[1])
    if not _alive(codes).any():
        return 1.0
    return float(procrustes(factors, codes)[2])


class MatchedSpearman(NamedTuple):
    """Rank correlations of latents matched to factors.

    `matched` is the smallest |rho| of a matched pair and `cross` the largest of all other pairs (0
    where there is none); `correlations` is |rho|, (d, k); factor j is matched to latent
    `latents[j]`.
    Defined in book/reproducing/circles.md, equation `eq-matched-spearman`.
    """

    matched: float
    cross: float
    correlations: np.ndarray
    latents: np.ndarray


def matched_spearman(codes, factors) -> MatchedSpearman:
    """Match one latent to each factor, so that the sum of their |Spearman rho| is largest.

    Unchanged by a monotone map of each latent and of each factor, and by the order and the signs
    of the latents. A dead latent has rho = 0 with everything.
    Shapes: codes (n, d), factors (n, k), d at least k. Derived in book/reproducing/circles.md,
    equation `eq-matched-spearman`.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.stats import rankdata

    codes, factors = _check_pair(codes, factors)
    d, k = codes.shape[1], factors.shape[1]
    if d < k:
        raise ValueError(f"codes must have a latent for each of the {k} factors, got {d} latents")
    rho = np.abs(_pearson(rankdata(codes, axis=0), rankdata(factors, axis=0)))
    latents = linear_sum_assignment(rho.T, maximize=True)[1]
    pairs = np.arange(d)[:, None] == latents
    cross = np.max(rho[~pairs], initial=0.0)
    return MatchedSpearman(float(rho[pairs].min()), float(cross), rho, latents)


def mig(codes, factors, *, bins: int = 20) -> float:
    """The mutual information gap: how much more the best latent knows of a factor than the second.

    Each latent and each factor is cut into `bins` bins of equal width between its smallest and its
    largest value here. The gap between the two largest informations, over the entropy of the binned
    factor (both estimated by counting), is averaged over the factors: 0 to 1, but the number
    depends on the bins.
    Shapes: codes (n, d), d at least 2, factors (n, k). Derived in book/reproducing/circles.md,
    equation `eq-mig`; Chen et al. 2018, Section 4.1.
    """
    codes, factors = _check_pair(codes, factors, least_latents=2)
    if checks.positive_int("bins", bins) < 2:
        raise ValueError(f"bins must be at least 2, got {bins}")
    latents = [_bin(latent, bins) for latent in codes.T]
    gaps = []
    for factor in factors.T:
        label = _bin(factor, bins)
        second, best = sorted(_information(label, latent, bins) for latent in latents)[-2:]
        gaps.append((best - second) / _entropy(label))
    return float(np.mean(gaps))


def _bin(values, bins):
    """The number of the equal-width bin that each value falls into, 0 to bins - 1."""
    edges = np.linspace(values.min(), values.max(), bins + 1)
    return np.digitize(values, edges[1:-1])


def _entropy(labels):
    from scipy.special import entr

    return entr(np.bincount(labels) / len(labels)).sum()


def _information(a, b, bins):
    return _entropy(a) + _entropy(b) - _entropy(bins * a + b)


def sap(codes, factors) -> float:
    """How much better the best latent predicts a factor than the second best does.

    The score of one latent is its squared correlation with the factor, the R^2 of a straight line;
    the gap is averaged over the factors: 0 to 1. ("Separated attribute predictability".)
    Shapes: codes (n, d), d at least 2, factors (n, k). Derived in book/reproducing/circles.md,
    equation `eq-sap`; Kumar et al. 2018, Section 3.
    """
    codes, factors = _check_pair(codes, factors, least_latents=2)
    scores = np.sort(_pearson(codes, factors) ** 2, axis=0)
    return float(np.mean(scores[-1] - scores[-2]))


def rotation_angle(codes, factors) -> float:
    """By how many degrees two latents are turned against two factors, in (-45, 45].

    The least-squares map from the factors to the codes, each standardised, has a nearest
    orthogonal matrix, its polar factor. Swapping and flipping latents brings that to a rotation
    R(a) by at most 45 degrees: the angle is +a for codes = factors @ R(a).T, where
    R(a) = [[cos a, -sin a], [sin a, cos a]] turns counter-clockwise.
    It is NaN where it means nothing: when a latent is dead, or the map has rank one. A latent that
    is all but dead gives some number, so look at `active_units` first.
    Shapes: codes and factors (n, 2). Derived in book/reproducing/circles.md, equation `eq-angle`.
    """
    codes, factors = _check_pair(codes, factors)
    checks.last_dimension("codes", codes, 2)
    checks.last_dimension("factors", factors, 2)
    slope = np.linalg.lstsq(_standardised(factors), _standardised(codes))[0].T
    left, stretches, right = np.linalg.svd(slope)
    if stretches[1] <= 1e-9 * stretches[0]:  # a dead latent is a row of zeros
        return float("nan")
    # The rows of a signed permutation of R(a) are (cos, -sin) at angles that differ by 90 degrees.
    cos, minus_sin = (left @ right)[0]
    angle = 45 - (45 - np.degrees(np.arctan2(-minus_sin, cos))) % 90
    return float(angle) if angle > -45 else 45.0  # -45 itself by rounding alone


def active_units(means, *, threshold: float = 0.01) -> np.ndarray:
    """Which latents move with the image: the variance of the posterior mean is above threshold.

    The threshold is in units of the prior's variance, 1. Shapes: means (n, d), the means of
    q(z|x) for n examples, n at least 2; returns (d,), bool.
    Derived in book/building/training.md, equation `eq-active`; Burda et al. 2015.
    """
    means, moving = _check_columns("means", means)
    if len(means) < 2:
        raise ValueError(f"means must be of at least 2 examples, got {len(means)}")
    checks.non_negative_float("threshold", threshold)
    return moving & (means.var(axis=0) > threshold)


@dataclasses.dataclass(frozen=True)
class CodeScores:
    """All scores of a code of two latents for two factors.

    `affine_r2` is the lower one of the two factors, `correlation` the |Pearson correlation| of the
    two latents with one another (0 when one is dead), `active` a count of latents. The others are
    those of the functions of these names. `active` supposes a code with a unit prior. Defined in
    book/reproducing/circles.md, from equation `eq-affine-r2` on.
    """

    affine_r2: float
    procrustes: float
    matched: float
    cross: float
    mig: float
    sap: float
    angle: float
    correlation: float
    active: int

    @property
    def unfolded(self) -> bool:
        """Whether a flat map of the codes gives back both factors: affine R^2 >= UNFOLDED_R2."""
        return self.affine_r2 >= UNFOLDED_R2

    @property
    def aligned(self) -> bool:
        """Whether each latent is one factor: matched >= ALIGNED_MATCHED, cross <= ALIGNED_CROSS."""
        return self.matched >= ALIGNED_MATCHED and self.cross <= ALIGNED_CROSS


def score_code(codes, factors, *, bins: int = 20) -> CodeScores:
    """All scores of a code at once.

    Shapes: codes and factors (n, 2). Raises as the single scores do. Used in
    book/reproducing/circles.md, from equation `eq-affine-r2` on.
    """
    angle = rotation_angle(codes, factors)  # first: it is the one that refuses other shapes
    matching = matched_spearman(codes, factors)
    latents, _ = _check_pair(codes, factors)
    return CodeScores(
        affine_r2=float(affine_r2(codes, factors).min()),
        procrustes=procrustes_distance(codes, factors),
        matched=matching.matched,
        cross=matching.cross,
        mig=mig(codes, factors, bins=bins),
        sap=sap(codes, factors),
        angle=angle,
        correlation=float(abs(_pearson(latents, latents)[0, 1])),
        active=int(active_units(codes).sum()),
    )


def _alive(columns):
    """Which columns vary; dead latents were set to exactly 0 when they were checked."""
    return np.ptp(columns, axis=0) > 0


def _spread(columns):
    """The standard deviation of each column, 1 for a dead one."""
    return np.where(_alive(columns), columns.std(axis=0), 1.0)


def _standardised(columns):
    return (columns - columns.mean(axis=0)) / _spread(columns)


def _pearson(a, b):
    """Correlations of the columns of a with those of b, (d, k); 0 where one is dead."""
    return _standardised(a).T @ _standardised(b) / len(a)


def _check_pair(codes, factors, least_latents: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Codes and factors in float64, dead latents at exactly 0, or an error that says what is wrong.

    Raises TypeError for what is no floating-point array; ValueError for wrong shapes, NaN, too few
    examples or latents, or a factor that never changes.
    """
    codes, moving = _check_columns("codes", codes)
    factors = _check_factors("factors", factors, "codes", codes)
    d = codes.shape[1]
    if d < least_latents:
        raise ValueError(f"codes must have at least {least_latents} latents, got {d}")
    if len(codes) < d + 2:  # d + 1 points have an affine fit without a residual
        raise ValueError(f"codes must be of at least {d + 2} examples, got {len(codes)}")
    return np.where(moving, codes, 0.0), factors


def _check_test(test, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The examples that a fit is scored on. Raises like `_check_pair`."""
    if not isinstance(test, tuple | list) or len(test) != 2:
        raise TypeError(f"test must be a pair (codes, factors) or None, got {type(test).__name__}")
    codes, _ = _check_columns("test codes", test[0])
    factors = _check_factors("test factors", test[1], "test codes", codes)
    checks.last_dimension("test codes", codes, d)
    checks.last_dimension("test factors", factors, k)
    return codes, factors


def _check_factors(name: str, factors, codes_name: str, codes) -> np.ndarray:
    factors, moving = _check_columns(name, factors)
    if len(factors) != len(codes):
        raise ValueError(
            f"{codes_name} and {name} must be of the same examples, got {len(codes)} and "
            f"{len(factors)}"
        )
    if not moving.all():
        still = np.flatnonzero(~moving).tolist()
        raise ValueError(f"{name} must all vary, but columns {still} are constant")
    return factors


def _check_columns(name: str, columns) -> tuple[np.ndarray, np.ndarray]:
    """The columns in float64, and which of them vary by more than the rounding of their dtype."""
    checks.float_array(name, columns)
    if columns.ndim != 2 or 0 in columns.shape:
        raise ValueError(f"{name} must have shape (n, columns), got {columns.shape}")
    limits = jnp.finfo(columns.dtype)
    rounding, least = _ROUNDINGS * float(limits.eps), float(limits.tiny) ** 0.5
    columns = np.asarray(columns, np.float64)
    checks.finite(name, columns)
    least = np.maximum(least, rounding * np.abs(columns).max(axis=0))
    return columns, np.ptp(columns, axis=0) > least
