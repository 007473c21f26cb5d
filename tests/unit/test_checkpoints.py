"""vae.checkpoints: whole files or none, no pickles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from unit_helpers import assert_same_params, params_of, small_vae

from vae import checkpoints


def tree():
    return {"a": jnp.arange(3), "b": (np.float32(2.5), [np.zeros((2, 0)), np.array(True)])}


def test_a_tree_comes_back_with_its_structure_dtypes_and_metadata(tmp_path):
    path, metadata = tmp_path / "new" / "tree.npz", {"note": "grün", "curve": [[1, 0.1], [2, 1e-9]]}
    checkpoints.save(path, tree(), metadata)
    back, stored = checkpoints.load(path, tree())
    assert stored == metadata
    assert jax.tree.structure(back) == jax.tree.structure(tree())
    for ours, theirs in zip(jax.tree.leaves(back), jax.tree.leaves(tree()), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == np.asarray(theirs).dtype


def test_a_model_and_its_optimiser_come_back(tmp_path):
    params = nnx.state(small_vae(), nnx.Param)
    state = params, optax.adam(1e-3).init(params)
    checkpoints.save(tmp_path / "m.npz", state)
    other = small_vae(seed=1)
    like = nnx.state(other, nnx.Param)
    (back, _), metadata = checkpoints.load(tmp_path / "m.npz", (like, optax.adam(1e-3).init(like)))
    assert metadata == {}
    nnx.update(other, back)
    assert_same_params(other, params_of(small_vae()))


def test_plain_numpy_reads_the_file_and_finds_names(tmp_path):
    checkpoints.save(tmp_path / "tree.npz", tree())
    with np.load(tmp_path / "tree.npz", allow_pickle=False) as file:
        assert {"a", "b/0", "b/1/0", "b/1/1"} < set(file.files)
    arrays, _ = checkpoints.read(tmp_path / "tree.npz")
    assert set(arrays) == {"a", "b/0", "b/1/0", "b/1/1"}


@pytest.mark.parametrize("broken", ["savez_compressed", "fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, broken):
    path = tmp_path / "tree.npz"
    checkpoints.save(path, tree(), {"which": "old"})
    before = path.read_bytes()

    def crash(file, *_, **__):
        if hasattr(file, "write"):
            file.write(b"PK half of a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(np if broken == "savez_compressed" else checkpoints.os, broken, crash)
    with pytest.raises(OSError, match="no space left"):
        checkpoints.save(path, tree(), {"which": "new"})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["tree.npz"]


def test_a_crash_while_writing_the_first_file_leaves_none(tmp_path, monkeypatch):
    def interrupted(file, **_):
        file.write(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path / "tree.npz", tree())
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_never_seen_half_written(tmp_path, monkeypatch):
    """The name appears with one rename, of a file that is complete by then."""
    path, complete = tmp_path / "tree.npz", []
    original = checkpoints.os.replace

    def watched(source, target):
        assert not path.exists()
        complete.append(checkpoints.read(source)[1])
        return original(source, target)

    monkeypatch.setattr(checkpoints.os, "replace", watched)
    checkpoints.save(path, tree(), {"epoch": 3})
    assert complete == [{"epoch": 3}] and path.exists()


def test_no_file_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoints.load(tmp_path / "none.npz", tree())


@pytest.mark.parametrize(
    "like, message",
    [
        ({"a": jnp.zeros(3)}, r"lacks nothing and holds \['b/0'"),
        (tree() | {"c": jnp.zeros(1)}, r"lacks \['c'\]"),
        (
            tree() | {"a": jnp.arange(4)},
            r"a is int32 of shape \(3,\), expected int32 of shape \(4,\)",
        ),
        (tree() | {"a": jnp.arange(3.0)}, "a is int32 .* expected float32"),
    ],
)
def test_a_tree_of_another_shape_is_refused(tmp_path, like, message):
    checkpoints.save(tmp_path / "tree.npz", tree())
    with pytest.raises(ValueError, match=message):
        checkpoints.load(tmp_path / "tree.npz", like)


def test_a_pickle_is_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("the pickle was opened",)

    array = np.empty(1, object)
    array[0] = Bomb()
    np.savez(tmp_path / "bomb.npz", a=array)
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        checkpoints.read(tmp_path / "bomb.npz")


def test_every_truncation_is_refused(tmp_path):
    checkpoints.save(tmp_path / "tree.npz", tree())
    whole = (tmp_path / "tree.npz").read_bytes()
    for size in range(0, len(whole), 23):
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.npz cannot be read as a checkpoint"):
            checkpoints.read(tmp_path / "cut.npz")


@pytest.mark.parametrize("kind", ["one array", "unknown compression", "encrypted"])
def test_files_of_neighbouring_kinds_are_refused(tmp_path, kind):
    path = tmp_path / "other.npz"
    if kind == "one array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    else:
        checkpoints.save(path, tree())
        content = bytearray(path.read_bytes())
        # The central directory's entry of the first member: its flags at 8, its method at 10.
        entry = content.index(b"PK\x01\x02")
        if kind == "encrypted":
            content[entry + 8] |= 1
            content[6] |= 1
        else:
            content[entry + 10] = content[8] = 99
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.npz cannot be read as a checkpoint"):
        checkpoints.read(path)
