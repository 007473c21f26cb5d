"""Pictures that Gymnasium draws: a second source of pendulums, whose code is not ours."""

import contextlib
import os
import warnings

import numpy as np

from vae import checks
from vae.datasets import shapes

WINDOW = 4.4  # how wide Pendulum-v1's window is, in lengths of its rod
WHITE, RED = 255, 77  # the green levels of its paper and of its pendulum; the axle's is 0
ROD = 0.45  # how long the rod shall be in our picture, whose width is 1


def gymnasium_pendulum(angles: np.ndarray, *, image_size: int = 28) -> np.ndarray:
    """Pictures of Gymnasium's Pendulum-v1 at given angles: (...) to (..., image_size**2), float32.

    Each is a frame of Gymnasium's own renderer, without the arrow that shows the torque: turned to
    grey with the paper at 0 and the pendulum at 1, cropped to the pendulum, and averaged down. The
    pivot is in the middle of the picture. The rod is 0.45 of the picture long and 0.09 wide, with
    round ends and no bob: `draw_pendulum` draws nearly the same with `length`, `rod_width` and
    `bob_radius` at 0.45, 0.09 and 0.045 of image_size. Angles are in radians, 0 upright and
    counter-clockwise positive.

    Raises ModuleNotFoundError, which says what to install, where Gymnasium or pygame is missing;
    ValueError for an angle that is not finite or a picture of fewer than 8 x 8 pixels. Used in
    book/reproducing/pendulum.md.
    """
    shapes.check_image_size(image_size)
    angles = np.asarray(angles, np.float64)
    checks.finite("angles", angles)
    images = np.empty((angles.size, image_size, image_size), np.float32)
    with _renderer() as env:
        average = _average(env.screen_dim, env.screen_dim / WINDOW / ROD, image_size)
        used = np.flatnonzero(average.any(axis=0))
        crop = slice(used[0], used[-1] + 1)
        average = average[:, crop]
        for image, angle in zip(images, angles.flat, strict=True):
            env.state, env.last_u = np.array([angle, 0.0]), None
            green = env.render()[crop, crop, 1].astype(np.float32)
            bright = np.clip((WHITE - green) / (WHITE - RED), 0, 1)
            image[...] = average @ bright @ average.T
    return np.clip(images, 0, 1).reshape(*angles.shape, image_size**2)


@contextlib.contextmanager
def _renderer():
    """Pendulum-v1, drawing into memory; leaves the environment and a caller's pygame as found."""
    # pygame greets on stdout and, in some versions, warns of its own imports. Gymnasium up to 1.3
    # starts all of it, sound included, which complains on stderr where a machine has no card.
    with (
        _environment(
            PYGAME_HIDE_SUPPORT_PROMPT="1", SDL_VIDEODRIVER="dummy", SDL_AUDIODRIVER="dummy"
        ),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            import gymnasium
            import pygame
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"gymnasium_pendulum needs {error.name}, which is not installed: "
                'pip install "gymnasium[classic-control]"',
                name=error.name,
            ) from error
        before, display_before = pygame.get_init(), pygame.display.get_init()
        env = gymnasium.make(
            "Pendulum-v1", render_mode="rgb_array", disable_env_checker=True
        ).unwrapped
        try:
            yield env
        finally:
            # Not env.close(): that ends all of pygame, which the caller may be using.
            if not display_before:
                pygame.display.quit()
                if pygame.get_init() and not before:
                    pygame.quit()


@contextlib.contextmanager
def _environment(**values):
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _average(pixels: int, width: float, image_size: int) -> np.ndarray:
    """(image_size, pixels): means over equal parts of the middle `width` pixels, cut exactly."""
    edges = (pixels - width) / 2 + np.linspace(0, width, image_size + 1)[:, None]
    # How much of each part lies on each pixel, which reaches from its number to the next.
    covered = np.clip(edges, np.arange(pixels), np.arange(1, pixels + 1))
    return (np.diff(covered, axis=0) / (width / image_size)).astype(np.float32)
