"""Updates on what the replay buffer holds, and the rules that limit it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from updates import REPLAY, SPEC, G, P, S, T, logprobs

from dots_jax import learner, policy
from dots_jax.core import rng, sharding
from dots_jax.learner import losses, replay
from dots_jax.run.checkpoint import Checkpointer, abstract


def test_a_gate_by_hand():
    """Against numpy: z-scores of increments among those before, never of the first eight, no energies of 0 or inf."""
    energies = np.random.default_rng(0).lognormal(size=30).astype(np.float32)
    energies[[3, 12]] = 0, np.inf
    gate, seen = learner.Gate.start(), []
    for energy in energies:
        gate, closes, z = gate.after(jnp.float32(energy), jnp.bool(False), 0.1, jnp.int32(7))
        before, want = np.diff(seen), 0.0
        if 0 < energy < np.inf:
            if len(before) >= 8:
                want = (energy - seen[-1] - before.mean()) / before.std(ddof=1)
            seen.append(float(energy))
        assert float(z) == pytest.approx(want, rel=1e-3, abs=1e-5) and not closes
    assert gate.ended == 0
    leap = jnp.float32(seen[-1] + 50)
    same, closes, z = gate.after(leap, jnp.bool(True), 1e3, jnp.int32(7))
    assert not closes and same.count == gate.count + 1 and z > 10
    closed, closes, _ = gate.after(leap, jnp.bool(True), 1.0, jnp.int32(7))
    assert closes and closed.ended == 7 and closed.count == gate.count and closed.energy == gate.energy
    after, closes, z = closed.after(leap, jnp.bool(True), 1.0, jnp.int32(8))
    assert not closes and z == 0
    jax.tree.map(np.testing.assert_array_equal, after, closed)


OLD, KEY = (((4, 5), 1), ((6, 7), 3)), 5


def groups(batch, which, step):
    """Groups of `batch` as they would lie in the buffer; a group's question is its place in the batch."""
    which = np.array(which)
    rollouts, rewards = jax.tree.map(lambda x: x[which], batch)
    return replay.Groups(rollouts, rewards, which, np.full(len(which), step, np.int32), np.arange(len(which)))


REPLAYING = dataclasses.replace(SPEC, ratio_cap=1.02, learning_rate=3e-3)


GUARDED = dataclasses.replace(REPLAY, decay=2.0, scale_by_age=True, gate=1.0)


def replaying_step(
    config,
    params,
    batch,
    spec=REPLAYING,
    replay_spec=REPLAY,
    sizes=(1, 1, 1),
    fresh=4,
    shards=1,
    old=OLD,
    reference=None,
    gate=None,
):
    """Training step 5 on the first groups of `batch`, with a buffer that holds others, `old`: (their ids, step)."""
    mesh = sharding.make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    params = jax.device_put(jax.tree.map(jnp.asarray, params), policy.transformer.shardings(config, mesh))
    state = learner.init_state(params, config, spec, mesh, replay_spec.is_gated)
    gate = gate and jax.device_put(jax.tree.map(jnp.copy, gate), sharding.replicated(mesh))  # what is given is lost
    state = dataclasses.replace(state, step=jnp.int32(4), gate=gate or state.gate)
    buffer = replay.init(replay_spec.num_slots, G, S, T, mesh)
    buffer = jax.tree.map(lambda x: x.reshape(shards, -1, *x.shape[2:]), buffer)
    for which, at in old:
        buffer = replay.add(buffer, groups(batch, which, at), np.ones(len(which), bool), mesh)
    own = replay.spread(groups(batch, range(fresh), 5), P, len(buffer.ids))
    args = (jnp.int32(fresh), jax.random.key(KEY), config, spec, mesh, replay_spec, reference)
    return learner.update(state, buffer, own, *args)


def test_the_padding_of_accelerators_changes_nothing(tiny_config, tiny_params, batch, monkeypatch):
    """Rows of up to 14 tokens padded to 128, fresh and replayed ones."""
    state, _, want = replaying_step(tiny_config, tiny_params, batch)
    monkeypatch.setattr(sharding, "length_unit", lambda platform: 128)
    spec = dataclasses.replace(REPLAYING, micro_tokens=25)  # a program of its own
    padded, _, got = replaying_step(tiny_config, tiny_params, batch, spec)
    for x, y in zip(jax.tree.leaves(padded.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4)
    for name in ("loss", "grad_norm", "clip_fraction", "entropy_useful", "scored", "tokens"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-3, err_msg=name)
    assert got["padding"] > 0.8 > want["padding"]


SLOW = [pytest.param(kind, REPLAY, marks=pytest.mark.slow) for kind in ("plain", "truncated_is")]


@pytest.mark.parametrize("kind, replay_spec", [("decoupled", REPLAY), ("decoupled", GUARDED), *SLOW])
def test_replay_equals_the_formula_written_out(tiny_config, tiny_params, batch, kind, replay_spec):
    """Fresh groups 0 to 3, of 4 to 7 those that are mixed, two optimizer steps, all rows in one padded forward."""
    rollouts, rewards = batch
    spec = dataclasses.replace(REPLAYING, loss=losses.find(kind))
    state, buffer, info = replaying_step(tiny_config, tiny_params, batch, spec, replay_spec)
    replayed = info.pop("replay")
    drawn = replayed["ids"].tolist()
    assert sorted(drawn) == [-1, -1, 4, 6]  # 5 and 7 have no variance; their places stay empty
    assert dict(zip(drawn, replayed["steps"].tolist(), strict=True)) == {4: 1, 6: 3, -1: -1}

    # The rows as they stand in the batch, [P, G, S + T].
    places = np.array([0, 1, 2, 3, *drawn])
    there, age = places >= 0, np.where(places == 4, 4, np.where(places == 6, 2, 0))
    tokens, real, old = (np.zeros((P, G, S + T), kind) for kind in (np.int32, bool, np.float32))
    for at, g in np.ndindex(P, G):
        p = places[at]
        n, m = rollouts.prompt_lengths[p], rollouts.lengths[p, g]
        tokens[at, g, :n], tokens[at, g, n : n + m] = rollouts.prompts[p, :n], rollouts.tokens[p, g, :m]
        real[at, g, n : n + m], old[at, g, n : n + m] = there[at], rollouts.logprobs[p, g, :m]
    r = rewards[places]
    a = np.where(there[:, None], (r - r.mean(1, keepdims=True)) / (r.std(1, ddof=1, keepdims=True) + 1e-6), 0)
    a /= 1 + age[:, None] * replay_spec.scale_by_age
    length = rollouts.prompt_lengths[places][:, None] + rollouts.lengths[places]
    rows = [x.reshape(P * G, *x.shape[2:]) for x in (tokens, length, real, old, a)]

    def logp(params, rows):
        return logprobs(params, tiny_config, rows[0], rows[1])

    proximal = np.where((age > 0).repeat(G)[:, None], logp(tiny_params, rows), rows[3])

    def loss(params, rows, proximal):
        _, _, real, old, a = rows
        a, now = a[:, None], logp(params, rows)
        ratio, before = jnp.exp(now - old), jnp.exp(proximal - old)
        if kind == "truncated_is":
            ratio, before = ratio * jnp.minimum(1, 1.02 / before), jnp.minimum(before, 1.02)
        centre = 1.0 if kind == "plain" else before
        free, clipped = -a * ratio, -a * jnp.clip(ratio, 0.8 * centre, 1.28 * centre)
        return (jnp.maximum(free, clipped) * real).sum() / real.sum(), (now, clipped > free)

    params, optimizer = tiny_params, spec.optimizer()
    moments = optimizer.init(params)
    order = np.asarray(jax.random.permutation(rng.stream(jax.random.key(KEY), rng.Purpose.UPDATE, 4), P))
    order = [*(at for at in order if there[at]), *(at for at in order if not there[at])]
    ratios, ages, clips, values = [], [], [], []
    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for which in (np.array(order[::2]), np.array(order[1::2])):  # three groups that exist in each
        which = (which[:, None] * G + np.arange(G)).ravel()
        part = [x[which] for x in rows]
        (value, (now, cut)), grads = gradient(params, part, proximal[which])
        updates, moments = optimizer.update(grads, moments, params)
        params = optax.apply_updates(params, updates)
        use = part[2] & (part[4] != 0)[:, None]
        ratios.append(np.exp(now - part[3])[use])
        ages.append(np.broadcast_to(age.repeat(G)[which][:, None], use.shape)[use])
        clips.append(cut[use])
        values.append(value)
    for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        assert np.quantile(abs(x - y), 0.99) < 1e-4 and abs(x - y).max() < 6.1e-3  # Adam: signs of near-zero gradients
    np.testing.assert_allclose(info["loss"], np.mean(values), atol=2e-5)

    ratio, of, clip = np.concatenate(ratios), np.concatenate(ages), np.concatenate(clips)
    stale = ratio[of > 0]
    want = {
        "share": 2 / 6,
        "overlap": 0,
        "size": 4,  # 1 and 2 of the fresh are mixed
        "ratio_mean": stale.mean(),
        "ratio_max": stale.max(),
        "effective_sample_size": stale.sum() ** 2 / (stale**2).sum() / len(stale),
    }
    for name, value in want.items():
        assert float(replayed[name]) == pytest.approx(value, rel=1e-3), name
    assert replayed["ages"].tolist() == [0, 1, 0, 1, 0, 0, 0, 0]
    for years in (0, 2, 4):
        log = np.log(ratio[of == years])
        assert float(replayed["log_ratio_sq_by_age"][years]) == pytest.approx((log**2).mean(), rel=1e-3)
        assert float(replayed["kl_by_age"][years]) == pytest.approx((np.exp(log) - 1 - log).mean(), rel=1e-3)
    assert np.isnan(replayed["kl_by_age"][1]) and clip[of > 0].any() and clip[of == 0].any()
    assert float(replayed["clip_fraction"]) == pytest.approx(clip[of > 0].mean(), rel=1e-4)
    assert float(info["clip_fraction_fresh"]) == pytest.approx(clip[of == 0].mean(), rel=1e-4)
    assert float(info["clip_fraction"]) == pytest.approx(clip.mean(), rel=1e-4)
    assert info["scored"] == (0 if kind == "plain" else rollouts.lengths[[4, 6]].sum())
    assert sorted(np.asarray(buffer.ids[buffer.step >= 0]).tolist()) == [1, 2, 4, 6]


def test_replay_options(tiny_config, tiny_params, batch):
    """One compilation serves: nothing to draw, a whole fresh batch, and a draw."""
    run = functools.partial(replaying_step, tiny_config, tiny_params, batch)
    compiled = learner.update._cache_size()
    state, buffer, info = run(old=())
    assert info["replay"]["share"] == 0 and np.isnan(info["replay"]["overlap"]) and info["scored"] == 0
    # Four fresh groups alone: the other places have no weight.
    alone = [x[:4] for x in jax.tree.leaves(batch)]
    assert float(info["tokens"]) == alone[3][[1, 2]].sum()
    assert replay.size(buffer) == 2
    whole, buffer, info = run(fresh=8)
    assert info["replay"]["share"] == 0 and (info["replay"]["ids"] == -1).all() and replay.size(buffer) == 4
    rollouts, _ = batch
    assert info["tokens"] == rollouts.lengths[[1, 2, 4, 6]].sum()
    assert float(info["entropy"]) == pytest.approx(-rollouts.logprobs.sum() / rollouts.lengths.sum(), rel=1e-5)
    assert learner.update._cache_size() <= compiled + 1


def test_replay_rules(tiny_config, tiny_params, batch):
    """Nothing before a draw is there; then what is young enough, once, and of that the better completions only."""
    replay_spec = dataclasses.replace(
        REPLAY, start="full", max_age=3, draw_once=True, positive_only=True, batch_size=P, fresh_fraction=0.75
    )
    spec = dataclasses.replace(REPLAYING, minibatches=1)
    run = functools.partial(replaying_step, tiny_config, tiny_params, batch, spec, replay_spec, fresh=6)
    lengths, rewards = batch[0].lengths, batch[1]
    own = lengths[[1, 2, 4]].sum()
    _, buffer, info = run(old=(((6,), 2),))
    assert info["replay"]["share"] == 0 and info["tokens"] == own and replay.size(buffer) == 4  # (1 - delta) B is 2
    # With 0 and 5, which have no variance, only 6 of step 2 is young enough; 1 and 2 are generated anew.
    _, buffer, info = run(old=(((1, 2), 1), ((6, 0), 2)))
    assert sorted(info["replay"]["ids"].tolist()) == [-1, 6] and info["replay"]["share"] == pytest.approx(1 / 7)
    better = rewards[6] > rewards[6].mean()
    assert info["tokens"] == own + lengths[6][better].sum() and 0 < better.sum() < G
    assert sorted(np.asarray(buffer.ids[buffer.step >= 0]).tolist()) == [1, 2, 4]
    assert info["scored"] == 0  # nothing moves before the only minibatch: its log-probs are the proximal ones
    assert info["replay"]["clip_fraction"] == 0


TENSE = learner.Gate(jnp.float32(1e-6), jnp.int32(20), jnp.float32(0), jnp.float32(1e-12), jnp.int32(0))


def test_a_gate_ends_replay(tiny_config, tiny_params, batch):
    """The optimizer step in which it closes is lost, in the next only fresh groups count, later nothing is drawn."""
    old = (((4, 6, 1, 2), 1),)  # in both minibatches
    run = functools.partial(replaying_step, tiny_config, tiny_params, batch, REPLAYING, GUARDED, old=old)

    def taken(state):
        return optax.tree_utils.tree_get_all_with_path(state.opt_state, "count")[0][1]

    open_, _, fine = run()
    closed, buffer, info = run(gate=TENSE)
    assert taken(open_) == 2 and taken(closed) == 1
    assert closed.gate.ended == info["replay"]["ended"] == 5
    assert open_.gate.ended == 0 and open_.gate.count == 1 and info["replay"]["gate"] > 1 > fine["replay"]["gate"]
    assert 0 < info["tokens"] < fine["tokens"] and replay.size(buffer) == 4
    ended = dataclasses.replace(TENSE, ended=jnp.int32(3))
    after, _, info = run(gate=ended)
    assert info["replay"]["share"] == 0 and taken(after) == 2
    jax.tree.map(np.testing.assert_array_equal, after.gate, ended)


def test_a_gate_goes_on_from_a_checkpoint(tiny_config, tiny_params, batch, tmp_path):
    """Three steps, the gate closing in the last: the same after a checkpoint before it, bit for bit."""
    mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
    state, buffer, _ = replaying_step(tiny_config, tiny_params, batch, REPLAYING, GUARDED)
    gate = dataclasses.replace(state.gate, count=jnp.int32(9), squares=jnp.float32(1e-6))
    state = dataclasses.replace(state, gate=jax.device_put(gate, sharding.replicated(mesh)))
    checkpoints = Checkpointer(str(tmp_path))
    checkpoints.save(1, {"learner": state, "buffer": buffer})
    checkpoints.wait()
    restored = checkpoints.restore(1, abstract({"learner": state, "buffer": buffer}))
    checkpoints.close()
    args = (jnp.int32(4), jax.random.key(KEY), tiny_config, REPLAYING, mesh, GUARDED)
    ends = []
    for start in ((state, buffer), (restored["learner"], restored["buffer"])):
        for at in (6, 7):
            own = replay.spread(groups(batch, range(4), at), P, 1)
            *start, info = learner.update(*start, own, *args)
        ends.append((*start, info))
    assert ends[0][0].gate.ended > 0
    jax.tree.map(np.testing.assert_array_equal, *ends)


@pytest.mark.slow
def test_replay_in_bfloat16_with_a_kl_penalty(tiny_config, tiny_params, batch):
    _, exact, info = replaying_step(tiny_config, tiny_params, batch)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), tiny_params)
    spec = dataclasses.replace(REPLAYING, kl_coef=0.1)
    _, buffer, got = replaying_step(tiny_config, params, batch, spec, reference=jax.tree.map(jnp.copy, params))
    assert np.isfinite([float(got[name]) for name in ("loss", "grad_norm", "kl")]).all()
    assert got["scored"] == info["scored"] and got["replay"]["share"] == info["replay"]["share"]
    assert got["tokens"] == batch[0].lengths[[0, 1, 2, 3, 4, 6]].sum()  # with the penalty all rows have a gradient
    jax.tree.map(np.testing.assert_array_equal, exact, buffer)


@pytest.mark.slow
@pytest.mark.parametrize("repeats, replay_spec", [(False, REPLAY), (True, GUARDED)], ids=["plain", "guarded"])
def test_replay_on_eight_devices(tiny_config, tiny_params, batch, repeats, replay_spec):
    """A buffer of four shards on one device and on data 2 x fsdp 2 x tensor 2: the same draws, parameters, buffer."""
    specs = dataclasses.replace(REPLAYING, repeat_useful=repeats), replay_spec
    one, two = (
        replaying_step(tiny_config, tiny_params, batch, *specs, sizes=sizes, shards=4, old=(((4, 6, 1, 2), 1),))
        for sizes in ((1, 1, 1), (2, 2, 2))
    )
    assert one[2]["replay"]["ids"].tolist() == two[2]["replay"]["ids"].tolist() and one[2]["replay"]["share"] > 0
    jax.tree.map(np.testing.assert_array_equal, one[1], two[1])
    for x, y in zip(jax.tree.leaves(one[0].params), jax.tree.leaves(two[0].params), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4)


def test_replay_in_bfloat16_rescores_what_is_fresh(tiny_config, tiny_params, batch):
    """Minibatches after the first need log-probs of fresh and replayed rows alike."""
    half = jax.tree.map(lambda x: np.asarray(x, jnp.bfloat16), tiny_params)
    infos = []
    for rescore in (False, True):
        spec = dataclasses.replace(REPLAYING, rescore_fresh=rescore)
        state, _, info = replaying_step(tiny_config, half, batch, spec)
        assert np.isfinite(info["loss"]) and all(np.isfinite(x).all() for x in jax.tree.leaves(state.master))
        infos.append(info)
    assert infos[1]["scored"] > infos[0]["scored"] > 0 and infos[1]["tokens"] == infos[0]["tokens"]
