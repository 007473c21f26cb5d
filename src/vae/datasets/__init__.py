"""Data for the chapters: each loader returns arrays and says where they came from."""

from vae.datasets.handwritten import MNIST, Split, mnist

__all__ = ["MNIST", "Split", "mnist"]
