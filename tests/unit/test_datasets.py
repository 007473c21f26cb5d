"""vae.datasets: files found or fetched, verified, and never left half there.

The hosts are servers of the test's own on 127.0.0.1; nothing here asks a public one.
"""

import gzip
import hashlib
import http.server
import os
import socket
import threading

import numpy as np
import pytest

import vae
from vae.datasets import faces, files, handwritten


def idx(array) -> bytes:
    """A gzipped IDX file of bytes."""
    header = b"\0\0\x08" + bytes([array.ndim])
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(header + sizes + array.astype(np.uint8).tobytes(), mtime=0)


RNG = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte.gz": RNG.integers(256, size=(7, 28, 28)),
    "train-labels-idx1-ubyte.gz": RNG.integers(10, size=7),
    "t10k-images-idx3-ubyte.gz": RNG.integers(256, size=(3, 28, 28)),
    "t10k-labels-idx1-ubyte.gz": RNG.integers(10, size=3),
}
CONTENT = {name: idx(array) for name, array in ARRAYS.items()}
SHA256 = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
FIRST = next(iter(CONTENT))


class Hosts(http.server.ThreadingHTTPServer):
    """Serves each file under several roots, of which only /good/ serves it as it should."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked, self.done = [], threading.Event()

    def at(self, root) -> str:
        return f"http://127.0.0.1:{self.server_port}/{root}/"


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        _, root, name = self.path.split("/")
        self.server.asked.append((root, name))
        content = CONTENT[name]
        if root == "silent":
            self.server.done.wait(60)
            return
        if root == "absent":
            return self.send_error(404)
        if root == "page":
            content = b"<html>please log in</html>"
        if root == "flipped":
            content = content[:100] + bytes([content[100] ^ 1]) + content[101:]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if root in ("cut", "stalls"):
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            if root == "stalls":
                self.server.done.wait(60)
            return
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with Hosts() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.done.set()
        server.shutdown()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, no VAE_DATA_DIR, the tiny files, and hosts that nobody has set yet."""
    pooch = pytest.importorskip("pooch")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("VAE_DATA_DIR", raising=False)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(handwritten, "FILES", SHA256)
    monkeypatch.setattr(handwritten, "HOSTS", ())
    monkeypatch.setattr(files, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(files, "READ_SECONDS", 0.3)
    return tmp_path / "cache" / "vae" / "mnist"


@pytest.fixture
def hosts(monkeypatch, server, cache):
    server.asked.clear()

    def use(*roots):
        addresses = tuple(root if "//" in root else server.at(root) for root in roots)
        monkeypatch.setattr(handwritten, "HOSTS", addresses)
        return addresses

    return use


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def contents(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()} if folder.exists() else {}


def assert_is_the_tiny_set(data):
    images, labels, test_images, test_labels = ARRAYS.values()
    np.testing.assert_array_equal(data.train.images, images.reshape(7, 784))
    np.testing.assert_array_equal(data.train.labels, labels)
    np.testing.assert_array_equal(data.test.images, test_images.reshape(3, 784))
    np.testing.assert_array_equal(data.test.labels, test_labels)
    assert data.train.images.dtype == data.test.labels.dtype == np.uint8
    assert (len(data.train), len(data.validation), len(data.test)) == (7, 0, 3)
    assert not data.is_stand_in and "stand-in" not in data.source


def test_files_are_downloaded_once_and_found_in_the_cache_after(hosts, cache, server):
    hosts("good")
    assert_is_the_tiny_set(vae.datasets.mnist())
    assert contents(cache) == CONTENT
    assert sorted(server.asked) == sorted(("good", name) for name in CONTENT)
    hosts()
    assert_is_the_tiny_set(vae.datasets.mnist())


@pytest.mark.parametrize("bad", ["page", "flipped", "cut", "silent", "stalls", "absent", "refused"])
def test_a_host_that_fails_is_passed_over_and_leaves_nothing(hosts, cache, server, bad):
    hosts(closed_port() if bad == "refused" else bad, "good")
    assert_is_the_tiny_set(vae.datasets.mnist())
    assert contents(cache) == CONTENT
    if bad != "refused":
        assert [root for root, name in server.asked if name == FIRST] == [bad, "good"]


@pytest.mark.parametrize("bad", ["page", "flipped", "cut", "silent", "stalls", "absent", "refused"])
def test_when_all_hosts_fail_the_error_names_them_and_what_to_do(hosts, cache, bad):
    addresses = hosts(closed_port() if bad == "refused" else bad, "absent")
    with pytest.raises(files.DownloadError) as error:
        vae.datasets.mnist()
    message = str(error.value)
    for host in addresses:
        assert host + FIRST in message
    assert SHA256[FIRST] in message and str(cache / FIRST) in message
    assert "VAE_DATA_DIR" in message and f"mnist/{FIRST}" in message
    assert isinstance(error.value, OSError)
    assert contents(cache) == {}
    assert not list(cache.parent.rglob("*.gz*"))


def test_an_interrupted_download_starts_anew(hosts, cache):
    hosts("cut")
    with pytest.raises(files.DownloadError):
        vae.datasets.mnist()
    hosts("good")
    assert_is_the_tiny_set(vae.datasets.mnist())


def test_a_wrong_file_in_the_cache_is_fetched_again(hosts, cache):
    cache.mkdir(parents=True)
    (cache / FIRST).write_bytes(CONTENT[FIRST][:50])
    hosts("good")
    assert_is_the_tiny_set(vae.datasets.mnist())
    assert contents(cache) == CONTENT


def test_the_error_says_where_to_place_a_file_and_a_file_placed_there_is_found(hosts, cache):
    hosts("absent")
    cache.mkdir(parents=True)
    for name, content in CONTENT.items():
        with pytest.raises(files.DownloadError, match=name):
            vae.datasets.mnist()
        (cache / name).write_bytes(content)
    assert_is_the_tiny_set(vae.datasets.mnist())


# A folder of one's own


@pytest.fixture
def folder(monkeypatch, tmp_path, cache):
    (tmp_path / "own" / "mnist").mkdir(parents=True)
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path / "own"))
    return tmp_path / "own" / "mnist"


def test_the_folder_that_is_named_comes_first(folder, cache):
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    cache.mkdir(parents=True)
    (cache / FIRST).write_bytes(b"never looked at")
    assert_is_the_tiny_set(vae.datasets.mnist())


@pytest.mark.parametrize("allow_stand_in", [False, True])
def test_a_wrong_file_in_the_folder_is_an_error_and_stays(folder, hosts, allow_stand_in):
    hosts("good")
    (folder / FIRST).write_bytes(b"something else")
    with pytest.raises(ValueError, match="not the expected file") as error:
        vae.datasets.mnist(allow_stand_in=allow_stand_in)
    found = hashlib.sha256(b"something else").hexdigest()
    for words in (str(folder / FIRST), found, SHA256[FIRST], "VAE_DATA_DIR"):
        assert words in str(error.value)
    assert (folder / FIRST).read_bytes() == b"something else"


def test_what_the_folder_lacks_is_looked_for_elsewhere_and_not_written_to_it(folder, hosts, cache):
    hosts("good")
    (folder / FIRST).write_bytes(CONTENT[FIRST])
    assert_is_the_tiny_set(vae.datasets.mnist())
    assert set(contents(folder)) == {FIRST}
    assert set(contents(cache)) == set(CONTENT) - {FIRST}


def test_the_last_10000_of_the_training_set_are_held_out(folder, monkeypatch):
    numbers = np.arange(60_000) % 251
    arrays = dict(zip(CONTENT, (numbers[:, None, None], numbers, *[np.arange(3)] * 2), strict=True))
    for name, array in arrays.items():
        (folder / name).write_bytes(idx(array))
        monkeypatch.setitem(SHA256, name, hashlib.sha256(idx(array)).hexdigest())
    data = vae.datasets.mnist()
    for split, expected in ((data.train, numbers[:50_000]), (data.validation, numbers[50_000:])):
        np.testing.assert_array_equal(split.labels, expected)
        np.testing.assert_array_equal(split.images[:, 0], expected)


# The stand-in


def test_the_stand_in_comes_only_where_it_is_allowed_and_is_marked(hosts):
    pytest.importorskip("sklearn")
    hosts("absent")
    with pytest.raises(files.DownloadError):
        vae.datasets.mnist()
    data = vae.datasets.mnist(allow_stand_in=True)
    assert data.is_stand_in and "not MNIST" in data.source
    assert (len(data.train), len(data.validation), len(data.test)) == (1397, 200, 200)


def test_the_stand_in_is_not_taken_where_mnist_can_be_had(hosts):
    hosts("good")
    assert_is_the_tiny_set(vae.datasets.mnist(allow_stand_in=True))


def test_the_stand_in_is_scikit_learns_digits_enlarged(hosts):
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    data = vae.datasets.mnist(allow_stand_in=True)
    splits = (data.train, data.validation, data.test)
    images = np.concatenate([split.images for split in splits])
    labels = np.concatenate([split.labels for split in splits])
    assert images.shape == (1797, 784) and images.dtype == labels.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(digits.target))
    squares = images.reshape(-1, 28, 28)
    margin = np.ones((28, 28), bool)
    margin[2:-2, 2:-2] = False
    assert (squares[:, margin] == 0).all() and squares.max() == 255
    # The middle of each 3 x 3 block is the pixel that it came from, so every digit can be found
    # again, once, with its label.
    coarse = np.rint(squares[:, 3:-2:3, 3:-2:3] / 255 * 16).astype(int)
    ours = sorted((tuple(c.ravel()), label) for c, label in zip(coarse, labels, strict=True))
    theirs = sorted(
        (tuple(image.astype(int).ravel()), label)
        for image, label in zip(digits.images, digits.target, strict=True)
    )
    assert ours == theirs


# IDX files


def test_an_idx_file_is_read_with_its_shape(tmp_path):
    for array in (ARRAYS[FIRST], np.zeros((0, 4)), np.arange(5)):
        (tmp_path / "a.gz").write_bytes(idx(array))
        back = handwritten.read_idx(tmp_path / "a.gz")
        assert back.dtype == np.uint8
        np.testing.assert_array_equal(back, array)


BYTES = b"\0\0\x08"
NO_IDX = {  # what it is: (its bytes, what the message says)
    "text": (b"no gzip", "no gzip file"),
    "cut": (idx(np.arange(200))[:-9], "truncated"),
    "nothing": (gzip.compress(b""), "no IDX file of bytes"),
    "floats": (gzip.compress(b"\0\0\x0d\x01\0\0\0\1abcd"), "no IDX file of bytes"),
    "short": (gzip.compress(BYTES + b"\x01\0\0\0\3ab"), "2 bytes for shape"),
    "long": (gzip.compress(BYTES + b"\x01\0\0\0\3abcd"), "4 bytes for shape"),
    "cut between sizes": (gzip.compress(BYTES + b"\x03\0\0\0\3"), "truncated"),
    "cut within a size": (gzip.compress(BYTES + b"\x03\0\0"), r"a\.gz"),
    "no deflate stream": (idx(np.arange(200))[:10] + b"\xff" * 40, r"a\.gz"),
}


@pytest.mark.parametrize("kind", NO_IDX)
def test_what_is_no_idx_file_is_refused(tmp_path, kind):
    content, message = NO_IDX[kind]
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        handwritten.read_idx(tmp_path / "a.gz")
    assert str(tmp_path / "a.gz") in str(error.value)


# The real files


@pytest.mark.skipif("VAE_DATA_DIR" not in os.environ, reason="needs MNIST in $VAE_DATA_DIR")
def test_mnist_is_mnist():
    data = vae.datasets.mnist()
    assert (len(data.train), len(data.validation), len(data.test)) == (50_000, 10_000, 10_000)
    for split in (data.train, data.validation, data.test):
        assert split.images.shape == (len(split), 784) and split.images.dtype == np.uint8
        assert split.labels.shape == (len(split),) and set(split.labels) == set(range(10))
    assert data.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    # The mean intensity of the published training set is 0.1307; the first label of the last
    # 10,000 is a 3, the last one an 8.
    training = np.concatenate([data.train.images, data.validation.images])
    assert abs(training.mean() / 255 - 0.1307) < 5e-5
    assert (data.validation.labels[0], data.validation.labels[-1]) == (3, 8)
    assert not data.is_stand_in


def test_a_host_is_given_seconds_to_answer_not_the_libraries_half_minute(hosts, monkeypatch):
    import pooch

    given = []

    class Recording(pooch.HTTPDownloader):
        def __init__(self, **options):
            given.append(options.get("timeout"))
            super().__init__(**options)

    monkeypatch.setattr(pooch, "HTTPDownloader", Recording)
    monkeypatch.setattr(files, "CONNECT_SECONDS", 0.25)
    monkeypatch.setattr(files, "READ_SECONDS", 0.5)
    hosts("good")
    handwritten.mnist()
    assert given == [(0.25, 0.5)] * 4


# Frey Face: the checksum is that of the faces, whatever program wrote the file.


def face_file(path, faces, compress=False):
    import scipy.io

    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"ff": faces.T}, do_compression=compress)
    return path


@pytest.fixture
def tiny_faces(monkeypatch, tmp_path):
    """Five faces, a folder for them, and no public host."""
    shown = RNG.integers(256, size=(5, 560)).astype(np.uint8)
    monkeypatch.setattr(faces, "SHA256", hashlib.sha256(shown.tobytes()).hexdigest())
    monkeypatch.setattr(faces, "HOSTS", ())
    monkeypatch.setattr(faces, "TRAIN", 3)
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path / "given"))
    return shown, tmp_path / "given" / "frey_face" / faces.NAME


@pytest.mark.parametrize("compress", [False, True])
def test_the_same_faces_in_another_file_are_accepted(tiny_faces, compress):
    shown, path = tiny_faces
    face_file(path, shown, compress)
    np.testing.assert_array_equal(faces.read_faces(path), shown)
    data = vae.datasets.frey_face()
    assert data.train.shape == (3, 560) and data.test.shape == (2, 560)
    both = np.concatenate([data.train, data.test])
    assert sorted(map(bytes, both)) == sorted(map(bytes, shown))  # each face once, shuffled
    again = vae.datasets.frey_face()
    np.testing.assert_array_equal(data.test, again.test)
    assert "3 for training, 2 for the test" in data.describe()


def test_other_faces_are_refused(tiny_faces):
    shown, path = tiny_faces
    face_file(path, shown[::-1])
    with pytest.raises(ValueError, match="not the expected file"):
        vae.datasets.frey_face()


@pytest.mark.parametrize("wrong", ["cut", "text", "shape"])
def test_what_holds_no_faces_is_refused_by_name(tiny_faces, wrong):
    shown, path = tiny_faces
    face_file(path, shown if wrong != "shape" else shown[:, :50])
    if wrong == "cut":
        path.write_bytes(path.read_bytes()[:300])
    if wrong == "text":
        path.write_text("no faces here")
    with pytest.raises(ValueError, match=path.name):
        vae.datasets.frey_face()


def test_without_a_copy_the_error_names_the_place_for_one(tiny_faces, cache):
    with pytest.raises(files.DownloadError, match=r"frey_face/frey_rawface\.mat"):
        vae.datasets.frey_face()


def test_a_wrong_file_from_a_host_is_not_left_behind(tiny_faces, cache, server, monkeypatch):
    shown, _ = tiny_faces
    monkeypatch.delenv("VAE_DATA_DIR", raising=False)
    monkeypatch.setitem(CONTENT, faces.NAME, b"<html>please log in</html>")
    monkeypatch.setattr(faces, "HOSTS", (server.at("good"),))
    with pytest.raises(files.DownloadError, match="no MATLAB file"):
        vae.datasets.frey_face()
    folder = cache.parent / "frey_face"
    assert contents(folder) == {}
    stored = face_file(cache.parent.parent / "source.mat", shown)
    monkeypatch.setitem(CONTENT, faces.NAME, stored.read_bytes())
    assert len(vae.datasets.frey_face().train) == 3
    assert set(contents(folder)) == {faces.NAME}
