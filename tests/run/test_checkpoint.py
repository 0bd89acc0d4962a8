import dataclasses
import errno
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dots_jax.core import files
from dots_jax.core.errors import UserError
from dots_jax.run import checkpoint
from dots_jax.run.checkpoint import Checkpointer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    weights: jax.Array
    extra: dict


def make(seed=0, width=6):
    key = jax.random.key(seed)
    return {
        "state": State(
            jax.random.normal(key, (4, width)),
            {"half": jax.random.normal(key, (5,), jnp.bfloat16), "key": jax.random.key_data(key), "none": None},
        ),
        "counts": [np.arange(3, dtype=np.int64) + seed, jnp.int32(seed)],
        "float64": np.array([0.1, 1e-300]),
        "step": 3 + seed,
        "seconds": 0.1 + seed,
        "done": seed > 0,
    }


def assert_same(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert type(a) is type(b)
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture
def saved(tmp_path):
    checkpointer = Checkpointer(str(tmp_path / "c"), keep=2)
    for step in (1, 2, 5):
        checkpointer.save(step, make(step))
    checkpointer.close()
    return tmp_path / "c"


def test_round_trip_and_keep(saved):
    checkpointer = Checkpointer(str(saved), keep=2)
    assert checkpointer.latest() == 5
    assert sorted(os.listdir(saved)) == ["2", "5"]
    assert_same(checkpointer.restore(5, make(0)), make(5))
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if isinstance(x, jax.Array) else x, make(0)
    )
    assert_same(checkpointer.restore(2, abstract), make(2))
    checkpointer.close()


def test_nothing_is_created_before_the_first_save(tmp_path):
    checkpointer = Checkpointer(str(tmp_path / "c"), keep=1)
    assert checkpointer.latest() is None
    checkpointer.close()
    assert os.listdir(tmp_path) == []


def test_what_is_saved_does_not_follow_later_changes(tmp_path):
    checkpointer = Checkpointer(str(tmp_path / "c"), keep=1)
    host, device = np.zeros(200_000), jnp.zeros(200_000)
    checkpointer.save(1, {"host": host, "device": device})
    host += 1
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    for _ in range(5):
        device = add(device)
    checkpointer.wait()
    got = checkpointer.restore(1, {"host": host, "device": device})
    assert float(got["device"].max()) == 0.0 and float(got["host"].max()) == 0.0
    checkpointer.close()


def test_half_written_checkpoints_are_ignored_and_removed(saved):
    (saved / "9.orbax-checkpoint-tmp").mkdir()
    checkpointer = Checkpointer(str(saved), keep=2)
    assert checkpointer.latest() == 5
    checkpointer.save(9, make(9))  # the removal runs in the background until here
    checkpointer.close()
    assert sorted(os.listdir(saved)) == ["5", "9"]


def largest_file(directory):
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [truncate, flip, os.remove])
@pytest.mark.parametrize("which", ["arrays", "metadata", "sums"])
def test_damage_is_seen(saved, damage, which):
    files = {
        "arrays": largest_file(saved / "5" / "default" / "ocdbt.process_0"),
        "metadata": saved / "5/default/_METADATA",
        "sums": saved / "5/crc32.json",
    }
    assert checkpoint.damage(str(saved / "5")) == "" and checkpoint.steps(str(saved)) == [2, 5]
    damage(files[which])
    assert files[which].name in checkpoint.damage(str(saved / "5"))
    assert checkpoint.damage(str(saved / "2")) == ""


def test_what_orbax_cannot_read_is_one_line(saved, capfd):
    os.remove(saved / "5" / "default" / "_METADATA")
    checkpointer = Checkpointer(str(saved), keep=2)
    with pytest.raises(UserError, match="cannot be read.*move that directory away.*--workdir") as error:
        checkpointer.restore(5, make(0))
    assert str(saved / "5") in str(error.value)
    assert_same(checkpointer.restore(2, make(0)), make(2))
    checkpointer.close()
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    tree = {"a": np.arange(3)}
    mine = Checkpointer(str(tmp_path), run="mine")
    mine.save(1, tree)
    mine.close()
    other = Checkpointer(str(tmp_path), run="other")
    with pytest.raises(UserError, match="is of another run.*--workdir"):
        other.restore(1, tree)
    other.close()
    for run in ("mine", ""):
        same = Checkpointer(str(tmp_path), run=run)
        assert_same(same.restore(1, tree), tree)
        same.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: t | {"state": make(0, width=7)["state"]},
            r"state/weights is float32\[4, 6\] there, float32\[4, 7\]",
        ),
        (lambda t: t | {"new": jnp.ones(2)}, "lacks the field new"),
        (lambda t: {k: v for k, v in t.items() if k != "step"}, "has a field step"),
        (lambda t: t | {"float64": np.zeros(2, np.float32)}, "float64 is float64"),
    ],
)
def test_another_runs_tree_is_refused_by_field(saved, change, said):
    checkpointer = Checkpointer(str(saved), keep=2)
    with pytest.raises(UserError, match=said) as error:
        checkpointer.restore(5, change(make(0)))
    assert "--workdir" in str(error.value)
    checkpointer.close()


_LIMITED = """
import os, resource, sys
import jax.numpy as jnp
from dots_jax.run.checkpoint import Checkpointer
from dots_jax.core.errors import UserError
trees = [{str(i): jnp.arange(1000.0 * size + i) for i in range(40)} for size in (1, 200)]
checkpointer = Checkpointer(sys.argv[1])
checkpointer.save(1, trees[0])
checkpointer.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    checkpointer.save(2, trees[1])
    checkpointer.close()
except UserError as error:
    print(error)
assert (checkpointer.restore(1, trees[0])["7"] == trees[0]["7"]).all()
sys.stdout.flush()
os._exit(0)
"""


def test_no_room_is_one_line(tmp_path):
    """A limit on file sizes stands in for a full disk; the checkpoint before it stays."""
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "c")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=files.ROOT, timeout=600)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.count("\n") == 1, done.stderr
    assert "cannot be written (File too large); make room" in done.stdout
    assert checkpoint.steps(str(tmp_path / "c")) == [1]


@pytest.mark.parametrize(
    ("error", "mend"),
    [(OSError(errno.ENOSPC, "No space left on device"), "make room"), (RuntimeError("a lock is held"), "mend that")],
)
def test_what_cannot_be_written_is_a_line_of_its_own(tmp_path, error, mend):
    def fail():
        raise error

    with pytest.raises(UserError, match=f"cannot be written .*; {mend}, then the same command continues"):
        Checkpointer(str(tmp_path))._write(fail)
