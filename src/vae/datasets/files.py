"""Files that others host: found in a folder, in the user's cache, or downloaded and verified."""

import hashlib
import os
import warnings
from pathlib import Path

CONNECT_SECONDS, READ_SECONDS = 5, 10  # how long a host may stay silent before the next is asked


class DownloadError(OSError):
    """No host served the file, and no copy of it was found here."""


def digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locate(folder: str, name: str, sha256: str, hosts, digest=digest) -> Path:
    """The path of a verified file `folder/name`.

    Looked for in `$VAE_DATA_DIR`, then in the user's cache, then asked of each host in turn (an
    address that `name` is appended to). A download that breaks off, or whose checksum is wrong,
    leaves nothing behind in the cache and starts anew with the next host. `digest` is the function
    of a path that gives the checksum, where what counts is not the file's own bytes; it raises
    ValueError for a file that it cannot read. Raises ValueError for a wrong file in
    `$VAE_DATA_DIR`, DownloadError where every way fails.
    """
    given = os.environ.get("VAE_DATA_DIR")
    if given:
        path = Path(given) / folder / name
        if path.exists():
            return _verified(path, sha256, digest)
    pooch = _pooch()
    cache = Path(pooch.os_cache("vae")) / folder
    if (cache / name).exists() and _digest_or_none(cache / name, digest) == sha256:
        return cache / name
    tried = []
    for host in hosts:
        unverified = cache / f".{name}.unverified"
        try:
            pooch.retrieve(
                host + name,
                known_hash=None,
                fname=unverified.name,
                path=cache,
                downloader=pooch.HTTPDownloader(timeout=(CONNECT_SECONDS, READ_SECONDS)),
            )
            _verified(unverified, sha256, digest)
            os.replace(unverified, cache / name)
            return cache / name
        except (OSError, ValueError) as error:  # requests' errors are OSErrors
            tried.append(f"  {host}{name}: {_one_line(error)}")
        finally:
            unverified.unlink(missing_ok=True)
    raise DownloadError(
        f"{name} could not be downloaded. Tried:\n"
        + "\n".join(tried)
        + f"\nTo place it by hand, put the file with sha256 {sha256} at {cache / name}, or at "
        f"{folder}/{name} in a folder of your own that the environment variable VAE_DATA_DIR names."
    )


def _pooch():
    # Needed only here, so that `import vae` does without it. It loads tqdm, which warns where a
    # notebook has no widgets, and logs each download; neither is news to who waits for the data.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pooch
    pooch.get_logger().setLevel("WARNING")
    return pooch


def _digest_or_none(path: Path, digest) -> str | None:
    try:
        return digest(path)
    except ValueError:
        return None


def _verified(path: Path, sha256: str, digest) -> Path:
    found = digest(path)
    if found != sha256:
        raise ValueError(
            f"{path} is not the expected file: its sha256 is {found}, expected {sha256}. "
            "Replace it, or unset VAE_DATA_DIR to have the file downloaded."
        )
    return path


def _one_line(error: Exception, width: int = 160) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= width else text[: width - 1] + "…"
