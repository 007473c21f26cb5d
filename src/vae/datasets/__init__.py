"""Data for the chapters: each loader returns arrays and says where they came from."""

from vae.datasets.faces import FreyFace, frey_face
from vae.datasets.handwritten import MNIST, Split, mnist
from vae.datasets.rendered import gymnasium_pendulum
from vae.datasets.shapes import (
    Circles,
    Pendulum,
    blur,
    circles,
    draw_circles,
    draw_pendulum,
    pendulum,
)

__all__ = [
    "MNIST",
    "Circles",
    "FreyFace",
    "Pendulum",
    "Split",
    "blur",
    "circles",
    "draw_circles",
    "draw_pendulum",
    "frey_face",
    "gymnasium_pendulum",
    "mnist",
    "pendulum",
]
