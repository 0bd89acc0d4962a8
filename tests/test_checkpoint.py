import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dots_jax.checkpoint import Checkpointer
from dots_jax.errors import UserError


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
@pytest.mark.parametrize("which", ["arrays", "metadata"])
def test_damage_is_the_users_to_mend(saved, damage, which, capfd):
    damage(
        largest_file(saved / "5" / "default" / "ocdbt.process_0")
        if which == "arrays"
        else saved / "5/default/_METADATA"
    )
    checkpointer = Checkpointer(str(saved), keep=2)
    step = checkpointer.latest()
    with pytest.raises(UserError, match="cannot be read.*delete that directory.*--workdir") as error:
        checkpointer.restore(step, make(0))
    assert str(saved / "5") in str(error.value)
    assert_same(checkpointer.restore(2, make(0)), make(2))
    checkpointer.close()
    assert capfd.readouterr() == ("", "")


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
