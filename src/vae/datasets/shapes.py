"""Pictures that are made, not fetched: circles and pendulums, whose hidden causes are known.

A place in a picture is in pixels: x counts columns, y counts rows, and (0, 0) is the middle of the
pixel in the top left corner. Edges are soft: the intensity falls from 1 to 0 over one pixel.
"""

import dataclasses
import numbers

import jax
import jax.numpy as jnp
import numpy as np

from vae import checks

SMALLEST_IMAGE = 8  # with fewer pixels to a side, soft edges one pixel wide leave no shape
FASTEST = 8.0  # radians per second, Gymnasium's Pendulum-v1


@dataclasses.dataclass(frozen=True)
class Circles:
    """Images (n, image_size**2), uint8 grey levels row by row, and what each was made from.

    `centers` (n, 2), float32, are (x, y) in pixels, where (0, 0) is the middle of the pixel in the
    top left corner; `radii` (n,), float32, in pixels. `radius_varies` says whether the radius is a
    factor too, or the same in every picture.
    """

    images: np.ndarray
    centers: np.ndarray
    radii: np.ndarray
    radius_varies: bool = False

    def __len__(self) -> int:
        return len(self.images)

    @property
    def factors(self) -> np.ndarray:
        """What differs from picture to picture: x, y, (n, 2); with radii that vary, (n, 3)."""
        if not self.radius_varies:
            return self.centers
        return np.concatenate([self.centers, self.radii[:, None]], axis=1)


def circles(
    key: jax.Array,
    n: int,
    *,
    radius: float | tuple[float, float] = 6.0,
    width: float | None = None,
    image_size: int = 28,
) -> Circles:
    """White circles on black, their centers uniform on the square that keeps them in the picture.

    A filled disc; with `width`, a ring whose line is that many pixels wide. A pair (low, high) for
    `radius` draws radii uniform between the two. The centers then keep to the square where the
    largest circle fits, so that the three factors are independent: a small circle never stands
    where a large one could not. Raises TypeError for what is no key, ValueError for a circle that
    does not fit or a picture of fewer than 8 x 8 pixels. The circles of
    book/reproducing/circles.md.
    """
    checks.random_key("key", key)
    n = checks.positive_int("n", n)
    check_image_size(image_size)
    radius_varies = not isinstance(radius, numbers.Real)
    smallest, largest = _radius_range(radius) if radius_varies else (radius, radius)
    reach = _reach(largest, width)
    low, high = reach - 0.5, image_size - 0.5 - reach
    if low > high:
        raise ValueError(
            f"a circle that reaches {reach:g} pixels does not fit {image_size} x {image_size}"
        )
    if radius_varies:
        key, radius_key = jax.random.split(key)
        radius = jax.random.uniform(radius_key, (n,), minval=smallest, maxval=largest)
    centers = jax.random.uniform(key, (n, 2), minval=low, maxval=high)
    images = draw_circles(centers, radius=radius, width=width, image_size=image_size)
    return Circles(
        images=np.asarray(jnp.rint(255 * images)).astype(np.uint8),
        centers=np.asarray(centers),
        radii=np.array(np.broadcast_to(np.asarray(radius, np.float32), (n,))),
        radius_varies=radius_varies,
    )


def draw_circles(
    centers: jax.Array,
    *,
    radius: float | jax.Array = 6.0,
    width: float | None = None,
    image_size: int = 28,
) -> jax.Array:
    """Intensities in [0, 1] of circles at given centers: (..., 2) to (..., image_size**2).

    `radius` is one number, or an array with one radius for each circle, broadcast against the
    leading axes of `centers`. Differentiable in centers and radii except where a pixel's edge
    begins. What lies outside the picture is cut off.
    """
    check_image_size(image_size)
    checks.last_dimension("centers", centers, 2)
    if isinstance(radius, numbers.Real):
        _reach(radius, width)
    else:
        radius = _radii(radius, np.shape(centers)[:-1])[..., None]
        _reach(1.0, width)
    centers = jnp.asarray(centers, jnp.float32)
    row, column = jnp.divmod(jnp.arange(image_size**2), image_size)
    distance = jnp.hypot(column - centers[..., :1], row - centers[..., 1:])
    inside = radius - distance if width is None else width / 2 - jnp.abs(distance - radius)
    return jnp.clip(inside + 0.5, 0, 1)


@dataclasses.dataclass(frozen=True)
class Pendulum:
    """Images (n, image_size**2), float32 intensities row by row, and the state behind each.

    `angles` (n,), float32, are in radians in [-pi, pi): 0 is upright, and counter-clockwise is
    positive, so that at pi/2 the pendulum points to the left. `velocities` (n,), float32, are in
    radians per second: part of the state, and no single picture shows them.
    """

    images: np.ndarray
    angles: np.ndarray
    velocities: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sin_cos(self) -> np.ndarray:
        """Sine and cosine of the angle, (n, 2): equal for equal pictures, as an angle is not."""
        return np.stack([np.sin(self.angles), np.cos(self.angles)], axis=-1)


def pendulum(
    key: jax.Array,
    n: int,
    *,
    image_size: int = 28,
    length: float | None = None,
    bob_radius: float | None = None,
    rod_width: float | None = None,
    noise: float = 0.0,
) -> Pendulum:
    """White pendulums on black, in states drawn at random, as of Gymnasium's Pendulum-v1.

    Angles are uniform on [-pi, pi), velocities uniform on [-8, 8] radians per second. The shape is
    that of `draw_pendulum`. `noise` is the standard deviation of Gaussian noise added to every
    pixel; nothing is clipped, so that a Gaussian likelihood of that deviation is exactly right.
    Without noise, intensities lie in [0, 1]. One key gives the same angles and velocities whatever
    the noise and the shape. Raises TypeError for what is no key, ValueError for negative noise and
    as `draw_pendulum` does. The pendulum of book/reproducing/pendulum.md.
    """
    checks.random_key("key", key)
    n = checks.positive_int("n", n)
    checks.non_negative_float("noise", noise)
    angle_key, velocity_key, noise_key = jax.random.split(key, 3)
    angles = jax.random.uniform(angle_key, (n,), minval=-jnp.pi, maxval=jnp.pi)
    velocities = jax.random.uniform(velocity_key, (n,), minval=-FASTEST, maxval=FASTEST)
    images = _draw_pendulum_compiled(
        angles,
        image_size=image_size,
        length=length,
        bob_radius=bob_radius,
        rod_width=rod_width,
    )
    if noise:
        images = images + noise * jax.random.normal(noise_key, images.shape)
    return Pendulum(np.asarray(images), np.asarray(angles), np.asarray(velocities))


def draw_pendulum(
    angles: jax.Array,
    *,
    image_size: int = 28,
    length: float | None = None,
    bob_radius: float | None = None,
    rod_width: float | None = None,
) -> jax.Array:
    """Intensities in [0, 1] of pendulums at given angles: (...) to (..., image_size**2).

    A rod with round ends, `length` pixels from the pivot to the middle of the bob and `rod_width`
    pixels across, and a bob of `bob_radius` pixels; the pivot is in the middle of the picture. The
    defaults are a thick pendulum: 7, 4 and 5 pixels of 28, and as much of any other picture. Angles
    are in radians, 0 upright and counter-clockwise positive, as Gymnasium draws Pendulum-v1.
    Differentiable in the angles except where a pixel's edge begins.

    Raises ValueError for a pendulum that does not fit, for a picture of fewer than 8 x 8 pixels,
    and for a rod or bob less than one pixel across, which would be drawn too bright.
    """
    length, bob_radius, rod_width = _pendulum_shape(image_size, length, bob_radius, rod_width)
    angles = jnp.asarray(angles, jnp.float32)[..., None]
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    row, column = jnp.divmod(jnp.arange(image_size**2), image_size)
    middle = (image_size - 1) / 2
    left, up = middle - column, middle - row  # where each pixel is, as seen from the pivot
    along = jnp.clip(left * sin + up * cos, 0, length)  # the point of the rod nearest to it
    to_rod = jnp.hypot(left - along * sin, up - along * cos) - rod_width / 2
    to_bob = jnp.hypot(left - length * sin, up - length * cos) - bob_radius
    return jnp.clip(0.5 - jnp.minimum(to_rod, to_bob), 0, 1)


# One loop over the pixels, where step by step 60,000 pictures would need gigabytes.
_draw_pendulum_compiled = jax.jit(
    draw_pendulum, static_argnames=("image_size", "length", "bob_radius", "rod_width")
)


def blur(images: jax.Array, std: float | jax.Array, *, image_size: int = 28) -> jax.Array:
    """Images blurred by a Gaussian of `std` pixels: (..., image_size**2) to the same shape.

    Beyond the border all is black. A sampled Gaussian along the rows, then along the columns. With
    std 0 the images come back as they are, and the way there is smooth. `std` may be traced, so
    that it can change from step to step of compiled training, from coarse to fine. Raises
    TypeError for images that are not floating-point, ValueError for another number of pixels or a
    negative std. Used in book/reproducing/circles.md.
    """
    image_size = checks.positive_int("image_size", image_size)
    checks.float_array("images", images)
    checks.last_dimension("images", images, image_size**2)
    checks.non_negative_float("std", std)
    images = jnp.asarray(images)
    # Below this floor every weight but the middle one is 0 in float32, and so is its slope.
    variance = jnp.maximum(jnp.square(jnp.asarray(std, jnp.float32)), 1e-3)
    steps = jnp.arange(image_size)
    weights = jnp.exp(-jnp.square(steps[:, None] - steps) / (2 * variance))
    # The sum of exp(-k^2 / 2 variance) over all whole k, whatever the size of the picture: term by
    # term where it is narrow; where it is wide, it is the integral (Poisson summation, to 1e-8).
    narrow = jnp.exp(-jnp.square(jnp.arange(-8, 9)) / (2 * variance)).sum()
    total = jnp.where(variance < 1, narrow, jnp.sqrt(2 * jnp.pi * variance))
    matrix = (weights / total).astype(images.dtype)
    rows = images.reshape(*images.shape[:-1], image_size, image_size)
    blurred = jnp.einsum("ij,...jk,kl->...il", matrix, rows, matrix, precision="highest")
    return blurred.reshape(images.shape)


def check_image_size(image_size: int) -> None:
    """Raise ValueError for a picture with too few pixels to draw on."""
    if checks.positive_int("image_size", image_size) < SMALLEST_IMAGE:
        raise ValueError(
            f"image_size must be at least {SMALLEST_IMAGE}, got {image_size}: on fewer pixels, "
            "edges that are one pixel soft leave no shape"
        )


def _reach(radius: float, width: float | None) -> float:
    """The distance from the center to the outer end of the line."""
    radius = checks.positive_float("radius", radius)
    return radius if width is None else radius + checks.positive_float("width", width) / 2


def _radius_range(radius) -> tuple[float, float]:
    if np.shape(radius) != (2,):
        raise ValueError(f"radius must be a number or a pair (low, high), got {radius!r}")
    low, high = (checks.positive_float("radius", end) for end in np.asarray(radius).tolist())
    if low >= high:
        raise ValueError(f"radius must be a pair (low, high) with low below high, got {radius!r}")
    return low, high


def _radii(radius, batch_shape) -> jax.Array:
    """An array of radii, positive, that broadcasts against the batch."""
    radius = radius if checks.is_traced(radius) else np.asarray(radius)
    if not jnp.issubdtype(radius.dtype, jnp.number):
        raise TypeError(f"radius must be a number or an array of numbers, got {radius!r}")
    try:
        np.broadcast_shapes(radius.shape, batch_shape)
    except ValueError:
        raise ValueError(
            f"radius of shape {radius.shape} does not broadcast against the leading axes of "
            f"centers, {batch_shape}"
        ) from None
    if not checks.is_traced(radius) and not (np.isfinite(radius) & (radius > 0)).all():
        raise ValueError(
            f"radius must be finite and above 0, got values from {radius.min()} to {radius.max()}"
        )
    return jnp.asarray(radius, jnp.float32)


def _pendulum_shape(image_size, length, bob_radius, rod_width) -> tuple[float, float, float]:
    """Length, bob radius and rod width in pixels, where None is the default for this picture."""
    check_image_size(image_size)
    length = checks.positive_float("length", image_size / 4 if length is None else length)
    bob_radius = checks.positive_float(
        "bob_radius", image_size * 5 / 28 if bob_radius is None else bob_radius
    )
    rod_width = checks.positive_float(
        "rod_width", image_size / 7 if rod_width is None else rod_width
    )
    if bob_radius < 0.5 or rod_width < 1:
        raise ValueError(
            "rod and bob must be at least one pixel across, or they would be drawn too bright: "
            f"rod_width must be at least 1, got {rod_width:g}, and bob_radius at least 0.5, got "
            f"{bob_radius:g}"
        )
    reach = length + max(bob_radius, rod_width / 2)
    if reach > image_size / 2:
        raise ValueError(
            f"a pendulum of length {length:g} with bob_radius {bob_radius:g} and rod_width "
            f"{rod_width:g} reaches {reach:g} pixels from the middle, and does not fit image_size "
            f"{image_size}: at most {image_size / 2:g}"
        )
    return length, bob_radius, rod_width
