"""MNIST as first published, and the stand-in digits for machines that cannot have it."""

import dataclasses
import gzip
import zlib

import numpy as np

from vae.datasets import files

HOSTS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FILES = {  # name: sha256
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}
IMAGE_SHAPE = (28, 28)


@dataclasses.dataclass(frozen=True)
class Split:
    """Images (n, 784), uint8 grey levels 0..255 row by row, and labels (n,), uint8."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclasses.dataclass(frozen=True)
class MNIST:
    """Handwritten digits, split for training, for watching and choosing, and for scoring.

    `source` says where they came from; `is_stand_in` whether they are not MNIST at all.
    """

    train: Split
    validation: Split
    test: Split
    source: str
    is_stand_in: bool = False

    def describe(self) -> str:
        """What this is and how it is split, in lines to print; a banner where it is a stand-in."""
        sizes = (
            f"{len(self.train):,} images for training, {len(self.validation):,} held out, "
            f"{len(self.test):,} for the test"
        )
        text = f"{self.source}: {sizes}"
        if not self.is_stand_in:
            return text
        rule = "*" * 79
        return (
            f"{rule}\nNOT MNIST. No copy of MNIST could be had on this machine. This is\n{text}.\n"
            "The claims about MNIST are skipped below, and say so. To run them, connect to the\n"
            "internet, or set VAE_DATA_DIR to a folder that holds mnist/*.gz.\n" + rule
        )


def mnist(*, allow_stand_in: bool = False) -> MNIST:
    """MNIST: 50,000 images for training, 10,000 held out of the training set, 10,000 for the test.

    The held-out images are the last 10,000 of the published training set, as in Kingma & Welling's
    own code. The files come from `$VAE_DATA_DIR/mnist`, the user's cache, or a public host.
    With `allow_stand_in`, a machine that can have none of them gets scikit-learn's 1,797 digits,
    brought to 28 x 28 and marked as a stand-in; otherwise it gets a DownloadError that says how to
    place the files by hand.
    """
    try:
        paths = {name: files.locate("mnist", name, sha256, HOSTS) for name, sha256 in FILES.items()}
    except files.DownloadError:
        if not allow_stand_in:
            raise
        return _stand_in()
    arrays = [read_idx(path) for path in paths.values()]
    train_images, train_labels, test_images, test_labels = arrays
    train_images, test_images = (a.reshape(len(a), -1) for a in (train_images, test_images))
    return MNIST(
        train=Split(train_images[:50_000], train_labels[:50_000]),
        validation=Split(train_images[50_000:], train_labels[50_000:]),
        test=Split(test_images, test_labels),
        source="MNIST as first published (LeCun, Cortes & Burges), checksums verified",
    )


def read_idx(path) -> np.ndarray:
    """The uint8 array in a gzipped IDX file. Raises ValueError for anything else."""
    try:
        with gzip.open(path, "rb") as file:
            raw = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is no gzip file, or a truncated one: {error}") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is no IDX file of bytes")
    header = 4 + 4 * raw[3]
    if len(raw) < header:
        raise ValueError(f"{path} is truncated: it ends within its header")
    shape = np.frombuffer(raw[4:header], ">u4")
    if len(raw) - header != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path} is truncated: {len(raw) - header} bytes for shape {tuple(shape)}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _stand_in() -> MNIST:
    from sklearn.datasets import load_digits  # needed only here

    digits = load_digits()
    # Each of the 8 x 8 pixels becomes 3 x 3, by linear interpolation, inside a margin of 2.
    coarse = digits.images / 16
    places = np.clip((np.arange(24) - 1) / 3, 0, 7)
    below = np.minimum(places.astype(int), 6)
    weight = places - below
    rows = coarse[:, below] * (1 - weight)[:, None] + coarse[:, below + 1] * weight[:, None]
    both = rows[:, :, below] * (1 - weight) + rows[:, :, below + 1] * weight
    levels = np.rint(255 * np.pad(both, ((0, 0), (2, 2), (2, 2)))).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(levels))
    images, labels = levels[order].reshape(-1, 784), digits.target[order].astype(np.uint8)
    train, validation, test = (
        Split(images[part], labels[part])
        for part in (slice(0, 1397), slice(1397, 1597), slice(1597, None))
    )
    return MNIST(
        train=train,
        validation=validation,
        test=test,
        source="a stand-in, not MNIST: scikit-learn's 1,797 digits of 8 x 8, brought to 28 x 28",
        is_stand_in=True,
    )
