"""Trees of arrays in `.npz` files: written whole or not at all, read back only where they fit.

Plain NumPy files without pickles: any version of NumPy reads them, and reading one runs no code.
"""

import json
import os
import zipfile
import zlib
from pathlib import Path

import jax
import numpy as np

_METADATA = "metadata.json"


def save(path, tree, metadata: dict | None = None) -> None:
    """Write the arrays of a pytree, and a dictionary that JSON can hold, to `path`.

    The file appears complete or not at all: it is written beside its place, then moved there.
    """
    path = Path(path)
    arrays = {name: np.asarray(leaf) for name, leaf in _named_leaves(tree).items()}
    text = json.dumps(metadata or {}, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            np.savez_compressed(file, **{_METADATA: np.array(text)}, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path, like) -> tuple:
    """Read what `save` wrote: (a tree shaped like `like`, the metadata).

    Raises FileNotFoundError where there is no file, ValueError where it is truncated, is no
    checkpoint, or holds arrays of other names, shapes or dtypes than `like`.
    """
    stored, metadata = read(path)
    expected = _named_leaves(like)
    if set(expected) != set(stored):
        missing, extra = sorted(set(expected) - set(stored)), sorted(set(stored) - set(expected))
        raise ValueError(
            f"{path} is a checkpoint of something else: it lacks {missing[:3] or 'nothing'} and "
            f"holds {extra[:3] or 'nothing'} besides. Move it away or name another file."
        )
    for name, leaf in expected.items():
        array = stored[name]
        if array.shape != np.shape(leaf) or array.dtype != np.asarray(leaf).dtype:
            raise ValueError(
                f"{path} is a checkpoint of something else: {name} is {array.dtype} of shape "
                f"{array.shape}, expected {np.asarray(leaf).dtype} of shape {np.shape(leaf)}. "
                "Move it away or name another file."
            )
    leaves = [stored[name] for name in expected]
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(like), leaves), metadata


def read(path) -> tuple[dict[str, np.ndarray], dict]:
    """Read what `save` wrote: (a dictionary from 'path/within/the/tree' to array, the metadata).

    Raises FileNotFoundError where there is no file, ValueError where it is no checkpoint.
    """
    path = Path(path)
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ValueError("it holds one array")
        with file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    # RuntimeError: an encrypted file, or one compressed in a way that Python cannot undo.
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, RuntimeError) as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint, it is truncated or another kind of file "
            f"({error}). It was left as it is; move it away to start anew."
        ) from error
    if _METADATA not in arrays:
        raise ValueError(f"{path} is an .npz file but no checkpoint: it has no {_METADATA}")
    return arrays, json.loads(str(arrays.pop(_METADATA)))


def _named_leaves(tree) -> dict:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(at, simple=True, separator="/"): leaf for at, leaf in leaves}
