"""Pictures that are made, not fetched: circles, whose hidden causes are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vae import checks


@dataclasses.dataclass(frozen=True)
class Circles:
    """Images (n, image_size**2), uint8 grey levels row by row, and centers (n, 2), float32.

    A center is (x, y) in pixels: x counts columns, y counts rows, and (0, 0) is the middle of the
    pixel in the top left corner.
    """

    images: np.ndarray
    centers: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def circles(
    key: jax.Array,
    n: int,
    *,
    radius: float = 6.0,
    width: float | None = None,
    image_size: int = 28,
) -> Circles:
    """White circles on black, their centers uniform on the square that keeps them in the picture.

    A filled disc; with `width`, a ring whose line is that many pixels wide. Edges are soft: the
    intensity falls from 1 to 0 over one pixel. Raises TypeError for what is no key, ValueError
    for a circle that does not fit.
    """
    checks.random_key("key", key)
    n = checks.positive_int("n", n)
    reach = _reach(radius, width)
    low, high = reach - 0.5, image_size - 0.5 - reach
    if low > high:
        raise ValueError(
            f"a circle that reaches {reach:g} pixels does not fit {image_size} x {image_size}"
        )
    centers = jax.random.uniform(key, (n, 2), minval=low, maxval=high)
    images = draw_circles(centers, radius=radius, width=width, image_size=image_size)
    return Circles(np.asarray(jnp.rint(255 * images)).astype(np.uint8), np.asarray(centers))


def draw_circles(
    centers: jax.Array,
    *,
    radius: float = 6.0,
    width: float | None = None,
    image_size: int = 28,
) -> jax.Array:
    """Intensities in [0, 1] of circles at given centers: (..., 2) to (..., image_size**2).

    Differentiable in the centers except where a pixel's edge begins. What lies outside the picture
    is cut off.
    """
    checks.positive_int("image_size", image_size)
    _reach(radius, width)
    checks.last_dimension("centers", centers, 2)
    centers = jnp.asarray(centers, jnp.float32)
    row, column = jnp.divmod(jnp.arange(image_size**2), image_size)
    distance = jnp.hypot(column - centers[..., :1], row - centers[..., 1:])
    inside = radius - distance if width is None else width / 2 - jnp.abs(distance - radius)
    return jnp.clip(inside + 0.5, 0, 1)


def _reach(radius: float, width: float | None) -> float:
    """The distance from the center to the outer end of the line."""
    radius = checks.positive_float("radius", radius)
    return radius if width is None else radius + checks.positive_float("width", width) / 2
