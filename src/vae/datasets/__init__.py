"""Data for the chapters: each loader returns arrays and says where they came from."""

from vae.datasets.handwritten import MNIST, Split, mnist
from vae.datasets.shapes import Circles, circles, draw_circles

__all__ = ["MNIST", "Circles", "Split", "circles", "draw_circles", "mnist"]
