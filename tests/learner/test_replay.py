"""The ring buffer against a plain list, the released code's trace, rules worked out by hand, and the compiler."""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import common
from dots_jax.core import sharding
from dots_jax.learner import replay
from dots_jax.rollout import Rollouts

G, S, T = 2, 3, 2
RULE = dataclasses.replace(replay.ReplaySpec(4, 2, **common.get_config().replay), capacity=8)


@functools.cache
def mesh(devices=1):
    return sharding.make_mesh(devices, 1, 1, devices=jax.devices()[:devices])


def groups(ids, successes, step, rollouts=G):
    """Groups whose every array tells question and step."""
    ids, P = np.array(ids, np.int32), len(ids)
    mark = (100 * step + ids).astype(np.int32)
    tokens = np.broadcast_to(mark[:, None, None], (P, G, T))
    rewards = (np.arange(rollouts) < np.array(successes)[:, None]).astype(np.float32)
    r = Rollouts(
        np.broadcast_to(mark[:, None], (P, S)),
        mark,
        tokens,
        np.broadcast_to(mark[:, None], (P, G)),
        -tokens.astype(np.float32),
        np.ones((P, G), bool),
    )
    return replay.Groups(r, rewards, ids, np.full(P, step, np.int32), np.arange(P, dtype=np.int32))


def held(buffer):
    """[(question, step)] of the slots in use, oldest first; every array of a slot must be of that group."""
    b = jax.tree.map(np.asarray, replay.from_shards(buffer))
    live = np.flatnonzero(b.step >= 0)
    consistent(b, live)
    return [(int(b.ids[i]), int(b.step[i])) for i in live[np.lexsort((b.batch_index[live], b.step[live]))]]


def consistent(b, which):
    for i in which:
        mark = 100 * b.step[i] + b.ids[i]
        r = b.rollouts
        assert r.prompt_lengths[i] == mark and (r.prompts[i] == mark).all() and (r.lengths[i] == mark).all()
        assert (r.tokens[i] == mark).all() and (r.logprobs[i] == -mark).all()


class Model:
    """The same rules on a list of (question, step), oldest first; for one shard."""

    def __init__(self, slots, keep=None):
        self.slots, self.keep, self.held = slots, keep, []

    def drop(self, ids):
        self.held = [(i, s) for i, s in self.held if i not in ids]

    def add(self, ids, successes, valid, step):
        batch = [(i, s, v) for i, s, v in zip(ids, successes, valid, strict=True) if v]
        useful = [(i, 0 < s < G) for i, s, _ in batch]
        if self.keep is None:
            new = [i for i, u in useful if u]
            last = [i for at, i in enumerate(new) if i not in new[at + 1 :]][-self.slots :]
            old = [(i, s) for i, s in self.held if i not in new]
            room = self.slots - len(last)
            self.held = old[max(0, len(old) - room) :] + [(i, step) for i in last]
        else:
            ids = [i for i, _ in useful]
            last = [i for at, (i, u) in enumerate(useful) if u and i not in ids[at + 1 :]]
            old = [(i, s) for i, s in self.held[max(0, len(self.held) - self.keep) :] if i not in ids]
            self.held = old + [(i, step) for i in last]


operation = st.one_of(
    st.tuples(
        st.just("add"),
        st.lists(st.integers(0, 11), min_size=4, max_size=4),
        st.lists(st.integers(0, G), min_size=4, max_size=4),
        st.lists(st.booleans(), min_size=4, max_size=4),
    ),
    st.tuples(st.just("draw"), st.integers(0, 2**31), st.booleans()),
)


@pytest.mark.parametrize("keep, slots", [(None, 6), (None, 3), (3, 7), (0, 4)])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(operations=st.lists(operation, min_size=50, max_size=80))
def test_equals_a_list(keep, slots, operations):
    """Thousands of random operations: duplicates within a batch, invalid groups, draws that remove, an age limit."""
    buffer, model = replay.init(slots, G, S, T, mesh()), Model(slots, keep)
    for step, (what, *args) in enumerate(operations, 1):
        if what == "add":
            ids, successes, valid = args
            buffer = replay.add(buffer, groups(ids, successes, step), np.array(valid), mesh(), keep)
            model.add(ids, successes, valid, step)
        else:
            seed, once = args
            eligible = model.held if once else [(i, s) for i, s in model.held if step - s <= 2]
            how = {"once": True} if once else {"max_age": 2}
            drawn, is_drawn, buffer = replay.sample(buffer, jax.random.key(seed), 3, step, mesh(), **how)
            drawn, is_drawn = jax.tree.map(np.asarray, (drawn, is_drawn))
            got = [(int(drawn.ids[i]), int(drawn.step[i])) for i in np.flatnonzero(is_drawn)]
            consistent(drawn, np.flatnonzero(is_drawn))
            assert len(got) == len(set(got)) == min(3, len(eligible)) and set(got) <= set(eligible)
            if once:
                model.held = [x for x in model.held if x not in got]
        assert held(buffer) == model.held
        assert replay.size(buffer) == len(model.held)


def test_golden_trace(goldens):
    """What the released code offers for replay, step by step, and how many groups it draws."""
    trace = json.loads((goldens / "replay_trace.json").read_text())
    B, size = trace["batch"], trace["group"]
    rule = dataclasses.replace(
        RULE, batch_size=B, interval=trace["mu"], fresh_fraction=trace["fresh_share"], capacity=trace["capacity"]
    )
    buffer = replay.init(rule.num_slots, size, S, T, mesh())
    assert rule.num_kept == 8 and len(trace["steps"]) == 10

    def wide(g):  # rewards say how many of 8 succeeded, the other arrays are of G completions
        r = g.rollouts
        more = {n: np.repeat(getattr(r, n), size // G, 1) for n in ("tokens", "lengths", "logprobs", "finished")}
        return dataclasses.replace(g, rollouts=dataclasses.replace(r, **more))

    for row in trace["steps"]:
        step, ids, successes = row["step"] + 1, row["fresh_ids"], row["fresh_successes_of_8"]
        assert held(buffer) == [
            (i, s + 1) for i, s in zip(row["replay_pool_ids"], row.get("replay_pool_steps", []), strict=True)
        ]
        assert rule.num_fresh_at(step) == len(ids)
        draw = B - len(ids)
        assert draw == row["replay_count"]
        if draw:
            _, is_drawn, buffer = replay.sample(buffer, jax.random.key(step), draw, step, mesh())
            assert is_drawn.sum() == row["replay_count"]
        fresh = wide(groups(ids + [0] * draw, successes + [1] * draw, step, size))
        buffer = replay.add(buffer, fresh, np.arange(B) < len(ids), mesh(), rule.num_kept)


def test_the_papers_rule_by_hand():
    """C = 4: only mixed groups go in, a newer copy replaces an older, and then the oldest go, as many as must."""
    rule = dataclasses.replace(RULE, start="full", insert="useful", capacity=4)
    assert rule.num_slots == 4 and rule.num_kept is None and rule.num_fresh_at(1) == 2

    def put(buffer, *args):
        return replay.add(buffer, groups(*args), np.ones(2, bool), mesh())

    buffer = put(replay.init(4, G, S, T, mesh()), [1, 2], [1, 2], 1)
    assert held(buffer) == [(1, 1)]  # all of 2's completions succeeded
    buffer = put(buffer, [3, 4], [1, 1], 2)
    assert held(buffer) == [(1, 1), (3, 2), (4, 2)]
    buffer = put(buffer, [3, 1], [1, 0], 3)  # 3 again; 1 without variance leaves its older copy alone
    assert held(buffer) == [(1, 1), (4, 2), (3, 3)]
    buffer = put(buffer, [5, 6], [1, 1], 4)
    assert held(buffer) == [(4, 2), (3, 3), (5, 4), (6, 4)]  # one had to go
    # Of four, (1 - delta) B = 2 are drawn; not before two are there.
    _, is_drawn, buffer = replay.sample(buffer, jax.random.key(0), 2, 5, mesh())
    assert is_drawn.all()
    _, is_drawn, buffer = replay.sample(buffer, jax.random.key(0), 2, 5, mesh(), allowed=False)
    assert not is_drawn.any()


def test_the_rules_schedule():
    code, paper = RULE, dataclasses.replace(RULE, start="full", last_step=3)
    assert [code.num_fresh_at(s) for s in range(1, 6)] == [4, 4, 2, 2, 2] and code.num_replayed == 2
    assert [paper.num_fresh_at(s) for s in range(1, 6)] == [2, 2, 2, 4, 4]
    # A gate that closes in step 3, the first of its round: whole batches from the next round on.
    assert [code.num_fresh_at(s, ended=3) for s in range(1, 8)] == [4, 4, 2, 2, 4, 4, 4]
    assert [paper.num_fresh_at(s, ended=2) for s in range(1, 4)] == [2, 2, 4]
    gated = dataclasses.replace(paper, last_step=0, gate=1.0)
    assert (gated.most_fresh(range(1, 9)), dataclasses.replace(gated, gate=0.0).most_fresh(range(1, 9))) == (4, 2)
    assert gated.is_gated and not dataclasses.replace(gated, fresh_fraction=1.0).is_gated
    assert code.num_slots == 6 + 4 and dataclasses.replace(RULE, insert="useful").num_slots == 8


def test_draws_are_uniform():
    buffer = replay.init(6, G, S, T, mesh())
    buffer = replay.add(buffer, groups([0, 1, 2, 3], [1] * 4, 1), np.ones(4, bool), mesh())
    buffer = replay.add(buffer, groups([4, 5, 6, 7], [1, 0, 2, 0], 2), np.ones(4, bool), mesh())
    draws = jax.jit(lambda keys: jax.lax.map(lambda key: replay.sample(buffer, key, 2, 3, mesh())[0].ids, keys))
    ids = np.asarray(draws(jax.random.split(jax.random.key(0), 5000)))
    share = np.bincount(ids.ravel(), minlength=8) / 5000
    np.testing.assert_allclose(share[:5], 2 / 5, atol=0.03)
    assert not share[5:].any() and (ids[:, 0] != ids[:, 1]).all()
    np.testing.assert_allclose((ids == 4).mean(0), 1 / 5, atol=0.03)  # at either place


def test_draws_follow_the_decay():
    """Of groups of ages 1, 2 and 4 the chance of each pair, in its order, is that of two draws by exp(-age / tau)."""
    buffer = replay.init(4, G, S, T, mesh())
    for i, step in enumerate((4, 3, 1)):
        buffer = replay.add(buffer, groups([i], [1], step), np.ones(1, bool), mesh())
    keys = jax.random.split(jax.random.key(0), 20000)

    def pairs(**how):
        draw = functools.partial(replay.sample, n=2, step=5, mesh=mesh(), **how)
        ids = np.asarray(jax.jit(lambda keys: jax.lax.map(lambda key: draw(buffer, key)[0].ids, keys))(keys))
        return np.bincount(3 * ids[:, 0] + ids[:, 1], minlength=9).reshape(3, 3) / len(keys)

    weight = np.exp(-np.array([1, 2, 4]) / 1.5)
    chance = weight[:, None] * weight / weight.sum() / (weight.sum() - weight[:, None])
    np.testing.assert_allclose(pairs(decay=1.5), chance * (1 - np.eye(3)), atol=0.012)
    np.testing.assert_allclose(pairs(), (1 - np.eye(3)) / 6, atol=0.012)
    # However old a group is, it is drawn where there is no other; none that is too old.
    far = functools.partial(replay.sample, key=keys[0], n=4, step=1000, mesh=mesh(), decay=0.5)
    assert far(jax.tree.map(jnp.copy, buffer))[1].sum() == 3
    drawn, is_drawn, _ = far(buffer, max_age=996)
    assert drawn.ids[is_drawn].tolist() == [0]


def in_shards(buffer, shards):
    """The empty buffer cut into more shards than there are devices."""
    return jax.tree.map(lambda x: x.reshape(shards, -1, *x.shape[2:]), buffer)


def test_shards_are_buffers_of_their_own():
    """Four shards of two groups each, on one device and on four: four buffers, but for copies of a question."""
    buffers = [in_shards(replay.init(8, G, S, T, mesh(n)), 4) for n in (1, 4)]
    parts = [Model(2) for _ in range(4)]
    rng = np.random.default_rng(0)
    for step in range(1, 8):
        ids, successes = rng.integers(0, 9, 8), rng.integers(0, G + 1, 8)
        new = groups(ids, successes, step)
        buffers = [replay.add(b, new, np.ones(8, bool), mesh(n)) for n, b in zip((1, 4), buffers, strict=True)]
        useful = [i if 0 < s < G else -1 for i, s in zip(ids.tolist(), successes, strict=True)]
        for i, part in enumerate(parts):
            mine = slice(2 * i, 2 * i + 2)
            part.drop(useful)
            last = [x >= 0 and x not in useful[at + 1 :] for at, x in enumerate(useful)]
            part.add(ids[mine].tolist(), successes[mine].tolist(), last[mine], step)
            for b in buffers:
                assert held(jax.tree.map(lambda x, i=i: x[i : i + 1], b)) == part.held
        how = (jax.random.key(step), 4, step)
        *drawn, buffers = zip(
            *(replay.sample(b, *how, mesh(n)) for n, b in zip((1, 4), buffers, strict=True)), strict=True
        )
        drawn = [*zip(*drawn, strict=True)]
        jax.tree.map(np.testing.assert_array_equal, *drawn)
        assert drawn[0][1].tolist() == [len(part.held) > 0 for part in parts]
    # Cut anew for two devices: nothing is lost, and the oldest of each shard still go first.
    two = replay.to_shards(replay.from_shards(buffers[1]), mesh(2))
    assert two.ids.shape == (2, 4) and held(two) == held(buffers[0])
    two = replay.add(two, groups([10, 11, 12, 13], [1] * 4, 8), np.ones(4, bool), mesh(2))
    for i in range(2):
        old = sorted(parts[2 * i].held + parts[2 * i + 1].held, key=lambda x: x[1])
        got = held(jax.tree.map(lambda x, i=i: x[i : i + 1], two))
        assert got[-2:] == [(10 + 2 * i, 8), (11 + 2 * i, 8)]
        assert sorted(s for _, s in got[:-2]) == [s for _, s in old[-2:]]


def test_every_shard_gets_its_part_of_the_fresh_groups():
    """Half a batch is fresh: in no shard do the groups grow old, and the batch is put together shard by shard."""
    rule = dataclasses.replace(RULE, batch_size=8, capacity=16)
    buffer = in_shards(replay.init(rule.num_slots + 8, G, S, T, mesh()), 4)
    for step in range(1, 9):
        fresh = rule.num_fresh_at(step)
        own = groups(range(100 * step, 100 * step + fresh), [1] * fresh, step)
        batch = replay.spread(own, 8, 4)
        valid = replay.spread_mask(fresh, 8, 4)
        assert np.asarray(batch.ids)[np.asarray(valid)].tolist() == own.ids.tolist()
        drawn, is_drawn, buffer = replay.sample(buffer, jax.random.key(step), 4, step, mesh(), allowed=fresh < 8)
        merged = jax.tree.map(np.asarray, replay.fill_with_replayed(batch, drawn, is_drawn, 4))
        consistent(merged, range(8))
        assert sorted(merged.ids.tolist()) == sorted(own.ids.tolist() + np.asarray(drawn.ids[is_drawn]).tolist())
        buffer = replay.add(buffer, batch, valid, mesh(), rule.num_kept)
        assert (buffer.step.max(1) == step).all() and replay.size(buffer) == min(8 * step, rule.num_kept + fresh)


@pytest.mark.parametrize("what", ["add, batch", "add, useful", "sample"])
def test_at_the_papers_size_on_eight_devices(what):
    """512 groups of 8 x 4096 tokens: no device sends anything, and the buffer is written in place."""
    slots, G, S, T, P = 512, 8, 1024, 4096, 256
    where = sharding.rows(mesh(8))

    def array(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    def size(tree):
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) // 8

    buffer = jax.tree.map(array, jax.eval_shape(lambda: replay.init(slots, G, S, T, mesh(8))))
    new = jax.tree.map(lambda x: array(jax.ShapeDtypeStruct((P, *x.shape[2:]), x.dtype)), buffer)
    # As the loop has them: what the host knows is on every device.
    everywhere = sharding.replicated(mesh(8))
    known = {name: getattr(new, name) for name in ("ids", "batch_index", "rewards")}
    whole = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere) for name, x in known.items()}
    new = dataclasses.replace(new, **whole)
    if what == "sample":
        key = jax.eval_shape(lambda: jax.random.key(0))
        step = jax.ShapeDtypeStruct((), jnp.int32)
        compiled = replay.sample.lower(buffer, key, P, step, mesh(8), once=True).compile()
        allowed = 1e5
    else:
        valid = jax.ShapeDtypeStruct((P,), bool, sharding=everywhere)
        keep = 256 if "batch" in what else None
        compiled = replay.add.lower(buffer, new, valid, mesh(8), keep).compile()
        allowed = size(new) + 1e5
    moved = re.findall("all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter", compiled.as_text())
    memory = compiled.memory_analysis()
    assert not moved and memory.alias_size_in_bytes >= size(buffer)
    assert memory.temp_size_in_bytes <= allowed < size(buffer)
