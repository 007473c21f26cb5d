"""Frey Face: 1,965 frames of one man's face, from a short film."""

import dataclasses
import hashlib

import numpy as np

from vae.datasets import files

HOSTS = ("https://cs.nyu.edu/~roweis/data/",)
NAME = "frey_rawface.mat"
# Of the faces as bytes, not of the file: copies of it were written by different programs.
SHA256 = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"
IMAGE_SHAPE = (28, 20)
TRAIN = 1600


@dataclasses.dataclass(frozen=True)
class FreyFace:
    """Faces, (n, 560), uint8 grey levels 0..255 row by row: 1,600 for training, 365 for the test.

    `source` says where they came from. The images are `image_shape` high and wide.
    """

    train: np.ndarray
    test: np.ndarray
    source: str
    image_shape: tuple[int, int] = IMAGE_SHAPE

    def describe(self) -> str:
        """What this is and how it is split, in a line to print."""
        return f"{self.source}: {len(self.train):,} for training, {len(self.test):,} for the test"


def frey_face() -> FreyFace:
    """Frey Face: 1,600 faces for training, 365 for the test, in an order shuffled once for all.

    The frames follow each other in time, so neighbours look alike; a test set that is the end of
    the film would be another task. The shuffling is a fixed one, `numpy.random.default_rng(0)`.
    The file comes from `$VAE_DATA_DIR/frey_face`, the user's cache, or the public host. Raises
    ValueError for a wrong file in `$VAE_DATA_DIR`, DownloadError, which says how to place it by
    hand, where no copy can be had.
    """
    faces = read_faces(files.locate("frey_face", NAME, SHA256, HOSTS, digest_of_faces))
    faces = faces[np.random.default_rng(0).permutation(len(faces))]
    return FreyFace(
        train=faces[:TRAIN],
        test=faces[TRAIN:],
        source="Frey Face (Roweis, Saul & Hinton), checksum verified",
    )


def read_faces(path) -> np.ndarray:
    """The faces in a MATLAB file, (n, 560) uint8, in the order of the film.

    Raises ValueError for a file that holds no such faces.
    """
    import scipy.io  # which JAX brings; needed only here

    try:
        columns = scipy.io.loadmat(path)["ff"]
    except FileNotFoundError:
        raise
    except Exception as error:  # SciPy raises many kinds for a file that is cut or none of its own
        raise ValueError(f"{path} is no MATLAB file with an array 'ff': {error}") from error
    if columns.ndim != 2 or len(columns) != np.prod(IMAGE_SHAPE) or columns.dtype != np.uint8:
        raise ValueError(
            f"{path} holds an array of {columns.dtype} and shape {columns.shape}, not faces of "
            f"{np.prod(IMAGE_SHAPE)} bytes, one in each column"
        )
    return np.ascontiguousarray(columns.T)


def digest_of_faces(path) -> str:
    """The sha256 of the faces in a MATLAB file, in hexadecimal."""
    return hashlib.sha256(read_faces(path).tobytes()).hexdigest()
