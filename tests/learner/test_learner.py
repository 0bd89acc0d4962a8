import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import common
from dots_jax import learner, policy
from dots_jax.core import plugins, rng, sharding
from dots_jax.core.errors import UserError
from dots_jax.learner import gradients, losses, replay
from dots_jax.learner.update import _minibatches
from dots_jax.rollout import Rollouts
from dots_jax.run.checkpoint import Checkpointer, abstract

P, G, S, T = 8, 4, 5, 9
SPEC = dataclasses.replace(
    learner.UpdateSpec.from_config(common.get_config()), minibatches=2, micro_tokens=24, logits_chunk=10,
    clip=(0.2, 0.28), loss=losses.decoupled, learning_rate=1e-2, weight_decay=0.1, max_grad_norm=0.5, remat="none",
    rescore_fresh=False, temperature=0.8,
)  # fmt: skip
REPLAY = dataclasses.replace(replay.ReplaySpec(P, 2, **common.get_config().replay), capacity=P, insert="useful")
STILL = dataclasses.replace(SPEC, learning_rate=1e-6, weight_decay=0.0)


def test_advantages_by_hand():
    rewards = jnp.array([[1.0, 0, 0, 0], [1, 1, 1, 1], [0.1, 0.1, 0.1, 0.1], [1, 0, 1, 0]])
    got = learner.advantages(rewards, std=False)
    np.testing.assert_allclose(got, [[0.75, -0.25, -0.25, -0.25], [0] * 4, [0] * 4, [0.5, -0.5, 0.5, -0.5]])
    got = learner.advantages(rewards, std=True)
    np.testing.assert_allclose(got[0], np.array([0.75, -0.25, -0.25, -0.25]) / (0.5 + 1e-6), rtol=1e-6)
    assert not np.asarray(got[1:3]).any()  # exactly zero, whatever the mean of 0.1s rounds to
    assert learner.mixed(rewards).tolist() == [True, False, False, True]


def test_losses_match_goldens(goldens):
    golden = np.load(goldens / "grpo_losses.npz")
    advantage = learner.advantages(jnp.asarray(golden["reward"]))
    np.testing.assert_allclose(advantage, golden["advantage"], atol=1e-5)
    mask = (np.arange(12) < golden["length"][:, None]).astype(np.float32)
    for kind in ("plain", "decoupled"):

        def loss(logp, kind=kind):
            clip = float(golden["clip_epsilon"])
            args = (golden["behaviour_logp"], golden["proximal_logp"], advantage.ravel(), mask, clip, kind)
            total, count, info = learner.policy_loss(logp, *args)
            return total / count, info

        (value, info), grad = jax.value_and_grad(loss, has_aux=True)(jnp.asarray(golden["logp"]))
        np.testing.assert_allclose(value, golden[f"{kind}_loss"], atol=1e-5)
        info = {name: x.sum() for name, x in info.items()}
        np.testing.assert_allclose(info["clipped"] / info["tokens"], golden[f"{kind}_clip_fraction"], atol=1e-5)
        np.testing.assert_allclose(grad, golden[f"{kind}_grad_logp"], atol=1e-5)
    kl = learner.kl_penalty(golden["logp"], golden["reference_logp"])
    np.testing.assert_allclose(kl * mask, golden["kl_k3"] * mask, atol=1e-5)


def test_clip_by_hand():
    """Ratio 1.5: clipped where the advantage is positive, not where it is negative; masked slots may hold anything."""
    logp, behaviour = jnp.log(jnp.array([[1.5, 1.5], [1.5, 9.0]])), jnp.array([[0.0, 0.0], [0.0, -jnp.inf]])
    mask = jnp.array([[1.0, 1.0], [1.0, 0.0]])
    grad, (total, count, info) = jax.grad(
        lambda x: (lambda out: (out[0], out))(
            learner.policy_loss(x, behaviour, behaviour, jnp.array([1.0, -1.0]), mask, 0.2)
        ),
        has_aux=True,
    )(logp)
    np.testing.assert_allclose(total, -1.2 - 1.2 + 1.5, rtol=1e-6)
    np.testing.assert_allclose(grad, [[0, 0], [1.5, 0]], rtol=1e-6)
    assert count == 3 and info["clipped"].tolist() == [2, 0] and info["tokens"].tolist() == [2, 1]
    assert info["ratio_max"] == pytest.approx([1.5, 1.5]) and info["ratio"] == pytest.approx([3, 1.5])
    log = np.log(1.5)
    assert info["log_ratio_sq"] == pytest.approx([2 * log**2, log**2])
    assert info["kl_behaviour"] == pytest.approx([2 * (0.5 - log), 0.5 - log])


@pytest.mark.parametrize("kind", ["plain", "decoupled", "truncated_is", lambda *args: losses.plain(*args)])
@pytest.mark.parametrize("clip, bounds", [(0.2, (0.8, 1.2)), ((0.2, 0.28), (0.8, 1.28)), ((0.1, 0.5), (0.9, 1.5))])
def test_both_bounds_of_the_clip(kind, clip, bounds):
    """A gain counts up to the upper one, a loss down to the lower one; beyond them there is no gradient."""
    ratio, zero = jnp.array([[0.5, 0.85, 1.25, 2.0]] * 2), jnp.zeros((2, 4))
    args = (zero, zero, jnp.array([1.0, -1.0]), jnp.ones((2, 4)), clip, kind)
    grad = jax.grad(lambda x: learner.policy_loss(x, *args)[0])(jnp.log(ratio))
    free = np.stack([ratio[0] < bounds[1], ratio[1] > bounds[0]])
    np.testing.assert_allclose(grad, np.where(free, ratio * np.array([[-1], [1]]), 0), rtol=1e-6)
    clipped = learner.policy_loss(jnp.log(ratio), *args)[2]["clipped"]
    assert clipped.tolist() == (~free).sum(1).tolist()


def test_truncation_by_hand():
    """Before the step the policy had moved by 3, within it by 1.5: the weight is 2, the clip around 2."""
    logp, proximal, behaviour = jnp.log(jnp.array([[4.5, 2.7]])), jnp.log(jnp.array([[3.0, 3.0]])), jnp.zeros((1, 2))
    args = (jnp.ones(1), jnp.ones((1, 2)), 0.2)
    total, _, info = learner.policy_loss(logp, behaviour, proximal, *args, losses.truncated_is, 2.0)
    np.testing.assert_allclose(total, -(2 * 1.2 + 2 * 0.9), rtol=1e-6)
    assert info["clipped"] == 1 and info["ratio_max"] == pytest.approx(4.5)
    total, _, _ = learner.policy_loss(logp, behaviour, proximal, *args, losses.decoupled)
    np.testing.assert_allclose(total, -(3 * 1.2 + 3 * 0.9), rtol=1e-6)


def test_aggregation_weights_by_hand():
    lengths = jnp.array([1, 3, 0])  # the last row does not exist
    weights = {kind: learner.aggregation_weights(lengths, kind, 5) for kind in ("token", "sequence", "constant")}
    np.testing.assert_allclose(weights["token"][:2], [1 / 4, 1 / 4])
    np.testing.assert_allclose(weights["sequence"][:2], [1 / 2, 1 / 6])
    np.testing.assert_allclose(weights["constant"][:2], [1 / 10, 1 / 10])


@pytest.fixture(scope="module")
def batch(tiny_config, tiny_params):
    """Ragged synthetic rollouts whose behaviour log-probs are near the policy's, three groups without variance."""
    random = np.random.default_rng(0)
    prompt_lengths = random.integers(1, S + 1, P).astype(np.int32)
    prompts = random.integers(1, 37, (P, S)).astype(np.int32) * (np.arange(S) < prompt_lengths[:, None])
    lengths = random.integers(1, T + 1, (P, G)).astype(np.int32)
    tokens = random.integers(0, 37, (P, G, T)).astype(np.int32) * (np.arange(T) < lengths[..., None])
    rewards = random.integers(0, 2, (P, G)).astype(np.float32)
    rewards[[0, 5]], rewards[3] = 1, 0
    rewards[[1, 2], 0] = 1 - rewards[[1, 2], 1]
    logp = np.zeros((P, G, T), np.float32)
    for p, g in np.ndindex(P, G):
        row = np.zeros(S + T, np.int32)
        n, m = prompt_lengths[p], lengths[p, g]
        row[:n], row[n : n + m] = prompts[p, :n], tokens[p, g, :m]
        logp[p, g, :m] = _logp(tiny_params, tiny_config, row[None], np.array([n + m]))[0, n : n + m]
    logp += 0.3 * random.normal(size=logp.shape).astype(np.float32) * (logp != 0)
    return Rollouts(prompts, prompt_lengths, tokens, lengths, logp, lengths < T), rewards


@functools.partial(jax.jit, static_argnums=1)
def _logp(params, config, tokens, lengths):
    return policy.token_logprobs(params, config, tokens, lengths, SPEC.temperature)[0]


def step(config, params, batch, spec=SPEC, sizes=(1, 1, 1), reference=None, dtype=np.float32, scored=False):
    """Parameters and metrics after one update, on the host."""
    mesh = sharding.make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    place = policy.transformer.shardings(config, mesh)
    params = jax.device_put(jax.tree.map(lambda x: jnp.asarray(x, dtype), params), place)
    state = learner.init_state(params, config, spec, mesh)
    given = learner.Groups.fresh(*batch, np.arange(P), 1, mesh)
    state, _, info = learner.update(
        state, None, given, jnp.int32(P), jax.random.key(0), config, spec, mesh, reference=reference
    )
    assert (info.pop("scored") > 0) == scored and "replay" not in info
    for leaf, where in zip(jax.tree.leaves(state.params), jax.tree.leaves(place), strict=True):
        assert leaf.sharding.is_equivalent_to(where, leaf.ndim)
    return jax.tree.map(np.asarray, state), {k: float(v) for k, v in info.items()}


def test_update_equals_plain_grpo(tiny_config, tiny_params, batch):
    """One minibatch against the formula written out: all rows in one padded forward, optax on the whole gradient."""
    rollouts, rewards = batch
    spec = dataclasses.replace(SPEC, minibatches=1, max_grad_norm=1e-2)
    rows = np.zeros((P * G, S + T), np.int32)
    where, old = np.zeros((P * G, S + T), bool), np.zeros((P * G, S + T), np.float32)
    for i, (p, g) in enumerate(np.ndindex(P, G)):
        n, m = rollouts.prompt_lengths[p], rollouts.lengths[p, g]
        rows[i, :n], rows[i, n : n + m] = rollouts.prompts[p, :n], rollouts.tokens[p, g, :m]
        where[i, n : n + m], old[i, n : n + m] = True, rollouts.logprobs[p, g, :m]
    a = ((rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, ddof=1, keepdims=True) + 1e-6)).reshape(-1, 1)

    def loss(params):
        logp = _logp(params, tiny_config, rows, where.sum(1) + rollouts.prompt_lengths.repeat(G))
        ratio = jnp.exp(logp - old)
        value = -jnp.minimum(ratio * a, jnp.clip(ratio, 0.8, 1.28) * a)
        return (value * where).sum() / where.sum(), ratio

    (value, ratio), grads = jax.value_and_grad(loss, has_aux=True)(tiny_params)
    optimizer = optax.chain(optax.clip_by_global_norm(1e-2), optax.adamw(1e-2, 0.9, 0.999, weight_decay=0.1))
    updates, _ = optimizer.update(grads, optimizer.init(tiny_params), tiny_params)
    state, info = step(tiny_config, tiny_params, batch, spec)
    np.testing.assert_allclose(info["loss"], value, atol=1e-5)
    np.testing.assert_allclose(info["grad_norm"], optax.global_norm(grads), rtol=1e-4)
    assert 0 < info["clip_fraction"] < 1 and info["ratio_max"] > 1.28 and info["skipped"] > 0
    moved = np.asarray(ratio)[where & (a != 0)]
    assert info["logprob_diff_clipped"] == pytest.approx(((moved < 0.8) | (moved > 1.28)).mean(), rel=1e-4)
    wanted = optax.apply_updates(tiny_params, updates)
    # Adam's first step is close to the gradient's sign, so entries near zero are compared at a looser tolerance.
    for x, y, g in zip(*(jax.tree.leaves(t) for t in (state.params, wanted, grads)), strict=True):
        np.testing.assert_allclose(x[abs(g) > 1e-6], y[abs(g) > 1e-6], atol=2e-4)
        assert abs(x - y).max() < 2.1e-2


SMALL = {"micro_tokens": 9, "logits_chunk": 1, "remat": "named"}


@pytest.mark.parametrize(
    "aggregation, change, sizes",
    [
        ("token", {"micro_tokens": 200, "logits_chunk": 64, "remat": "full"}, (1, 1, 1)),
        ("token", {}, (2, 2, 2)),
        ("token", {}, (8, 1, 1)),  # more devices than groups
        pytest.param("token", {"remat": "named"}, (1, 8, 1), marks=pytest.mark.slow),
        pytest.param("sequence", SMALL, (1, 1, 1), marks=pytest.mark.slow),
        pytest.param("constant", SMALL, (1, 1, 1), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_update_does_not_depend_on(tiny_config, tiny_params, batch, aggregation, change, sizes):
    """Micro-batches, head chunks, remat, device count: parameters within 1e-4 at a learning rate of 1e-2."""
    spec = dataclasses.replace(SPEC, aggregation=aggregation)
    want, info = step(tiny_config, tiny_params, batch, spec)
    got, other = step(tiny_config, tiny_params, batch, dataclasses.replace(spec, **change), sizes)
    for x, y in zip(jax.tree.leaves(got.params), jax.tree.leaves(want.params), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4)
    for name in ("loss", "grad_norm", "clip_fraction", "entropy_useful", "logprob_diff_mean"):
        np.testing.assert_allclose(other[name], info[name], rtol=1e-3, err_msg=name)
    assert other["skipped"] == info["skipped"]
    if "micro_tokens" in change:
        assert other["padding"] != info["padding"]


def test_groups_without_variance_count_in_the_normalisation(tiny_config, tiny_params, batch):
    rollouts, rewards = batch
    flat = np.zeros_like(rewards)
    state, info = step(tiny_config, tiny_params, (rollouts, flat), STILL)
    assert info["skipped"] == 1 and info["grad_norm"] == 0 and info["loss"] == 0
    jax.tree.map(np.testing.assert_array_equal, state.params, tiny_params)
    longer = dataclasses.replace(rollouts, lengths=np.where(rewards.std(1, keepdims=True) > 0, rollouts.lengths, T))
    a, b = (step(tiny_config, tiny_params, (r, rewards))[1]["grad_norm"] for r in (rollouts, longer))
    assert b < 0.97 * a  # more tokens in skipped groups, smaller weights of the others


def test_what_is_dropped_does_not_exist(tiny_config, tiny_params, batch):
    """Silent groups and truncated completions: the same update as without them, rewards of the latter kept."""
    rollouts, rewards = batch
    spec = dataclasses.replace(SPEC, minibatches=1, max_grad_norm=1e-2)
    counts = np.where(learner.mixed(rewards)[:, None] & rollouts.finished, rollouts.lengths, 0)
    assert 0 < counts.astype(bool).sum() < learner.mixed(rewards).sum() * G
    less = dataclasses.replace(rollouts, lengths=counts)
    want, expected = step(tiny_config, tiny_params, (less, rewards), spec)
    dropping = dataclasses.replace(spec, drop_silent=True, mask_truncated=True)
    got, info = step(tiny_config, tiny_params, batch, dropping)
    for x, y in zip(jax.tree.leaves(got.params), jax.tree.leaves(want.params), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4)
    for name in ("loss", "grad_norm", "skipped", "tokens", "clip_fraction"):
        assert info[name] == pytest.approx(expected[name], rel=1e-4), name
    assert info["tokens"] == counts.sum()


def test_minibatches_drop_mask_and_repeat(batch):
    """By the numbers alone: which groups stand where, and which of their rows count."""
    rollouts, rewards = batch
    new = learner.Groups.fresh(
        rollouts, rewards, np.arange(P), 5, sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
    )
    useful, order = np.asarray(learner.mixed(rewards)), np.random.default_rng(0).permutation(P)

    def cut(**fields):
        data = _minibatches(new, order, jnp.int32(5), dataclasses.replace(SPEC, **fields), None)
        data = jax.tree.map(lambda x: np.asarray(x).reshape(P, *x.shape[2:]), data)
        at = [next(p for p in range(P) if (data.completions[i] == rollouts.tokens[p]).all()) for i in range(P)]
        return data, np.array(at)

    data, at = cut()
    assert at.tolist() == order.tolist() and (data.lengths == rollouts.lengths[at]).all()
    data, at = cut(drop_silent=True)
    assert (data.lengths == rollouts.lengths[at] * useful[at][:, None]).all() and sorted(at) == [*range(P)]
    halves = useful[at].reshape(2, -1).sum(1)
    assert abs(halves[0] - halves[1]) <= 1  # those that count are dealt out
    data, at = cut(mask_truncated=True)
    assert (data.lengths == np.where(rollouts.finished, rollouts.lengths, 0)[at]).all()
    np.testing.assert_allclose(data.advantages, learner.advantages(rewards)[at])  # rewards count as before
    data, at = cut(repeat_useful=True)
    times = np.bincount(at, minlength=P)
    assert (times[~useful] == 0).all() and times[useful].max() - times[useful].min() <= 1
    assert (at == order)[useful[order]].all()  # useful groups stay where they were
    new = dataclasses.replace(new, rewards=jnp.zeros_like(new.rewards))
    data, at = cut(repeat_useful=True)
    assert at.tolist() == order.tolist()  # nothing to repeat


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


def test_kl_far_apart_and_masked_has_a_finite_gradient():
    logp, reference = jnp.array([-120.0, -5.0, -1.0]), jnp.array([-5.0, -120.0, -1.5])
    value, grad = jax.value_and_grad(lambda x: learner.kl_penalty(x, reference).sum())(logp)
    assert np.isfinite(grad).all() and value == pytest.approx(10 + 10 + np.exp(-0.5) - 0.5)


def test_kl(tiny_config, tiny_params, batch):
    spec = dataclasses.replace(SPEC, kl_coef=0.1)
    other = jax.tree.map(lambda x: x + 0.05, tiny_params)
    _, plain = step(tiny_config, tiny_params, batch)
    _, same = step(tiny_config, tiny_params, batch, spec, reference=tiny_params)
    _, apart = step(tiny_config, tiny_params, batch, spec, reference=other)
    assert "kl" not in plain and same["skipped"] == 0
    assert 0 <= same["kl"] < apart["kl"] and apart["loss"] > same["loss"]


def test_bfloat16_parameters_have_a_float32_master(tiny_config, tiny_params, batch):
    """Steps far below bfloat16's resolution add up in the master copy."""
    state, info = step(tiny_config, tiny_params, batch, STILL, dtype=jnp.bfloat16)
    start = jax.tree.map(lambda x: np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32), tiny_params)
    moved = jax.tree.map(lambda a, b: abs(a - b).max(), state.master, start)
    assert all(0 < x < 1e-5 for x in jax.tree.leaves(moved))
    assert {x.dtype.name for x in jax.tree.leaves(state.params)} == {"bfloat16"}
    _, exact = step(tiny_config, tiny_params, batch, STILL)
    assert info["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.05)
    floats = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert {x.dtype.name for x in floats} == {"float32"} and np.isfinite(info["loss"])


def compiled_memory(config, replay_spec=None, questions=4, tokens=256):
    """What the compiler needs for an update, the bytes of the parameters and of the buffer."""
    mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
    spec = dataclasses.replace(SPEC, minibatches=1, micro_tokens=1024, logits_chunk=128, remat="full")
    params = jax.eval_shape(lambda: policy.init(config, jax.random.key(0)))
    state = jax.eval_shape(lambda p: learner.TrainState(p, None, spec.optimizer().init(p), jnp.int32(0)), params)
    buffer = jax.eval_shape(lambda: replay.init(replay_spec.num_slots, G, S, tokens, mesh)) if replay_spec else None

    def array(*shape, dtype=jnp.int32):
        return jax.ShapeDtypeStruct(shape, dtype)

    sampled = array(questions, G, tokens), array(questions, G), array(questions, G, tokens, dtype=jnp.float32)
    rollouts = Rollouts(array(questions, S), array(questions), *sampled, array(questions, G, dtype=bool))
    rewards, whole = array(questions, G, dtype=jnp.float32), array(questions)
    key = jax.eval_shape(lambda: jax.random.key(0))
    args = (learner.Groups(rollouts, rewards, whole, whole, whole), array(), key, config, spec, mesh, replay_spec)
    compiled = learner.update.lower(state, buffer, *args).compile()
    sizes = (sum(x.dtype.itemsize * x.size for x in jax.tree.leaves(tree)) for tree in (params, buffer))
    return compiled.memory_analysis(), *sizes


def test_memory_does_not_hold_all_logits(tiny_config):
    """Vocabulary 151,936: the update's temporaries stay far below rows x tokens x V floats."""
    config = dataclasses.replace(tiny_config, vocab_size=151936, num_tokens=151665, tie_embeddings=True)
    memory, weights, _ = compiled_memory(config)
    everything = 4 * G * 256 * config.vocab_size * 4
    assert memory.temp_size_in_bytes - 4 * weights < everything / 4, (memory.temp_size_in_bytes, everything)
    assert memory.alias_size_in_bytes >= 3 * weights  # parameters and moments are updated in place


@pytest.mark.parametrize("insert", ["useful", "batch"])
def test_the_buffer_is_not_copied(tiny_config, insert):
    """A draw and an insertion in one program, on a buffer larger than all else."""
    replay_spec = dataclasses.replace(REPLAY, batch_size=4, capacity=2**15, insert=insert)
    memory, weights, buffer = compiled_memory(tiny_config, replay_spec)
    assert memory.temp_size_in_bytes < buffer / 2, (memory.temp_size_in_bytes, buffer)
    assert memory.alias_size_in_bytes >= 3 * weights + buffer


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
        return _logp(params, tiny_config, rows[0], rows[1])

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


@pytest.mark.parametrize(
    "source, said",
    [
        ("def loss(logp, behaviour): return logp, logp > 0", "failed on log-probs .2, 3.*TypeError"),
        ("def loss(*arrays): return arrays[0]", "must return two arrays"),
        ("def loss(*arrays): return arrays[0].sum(), arrays[0] > 0", "must return two arrays"),
        ("def loss(*arrays): return arrays[7], arrays[0] > 0", "failed on .*IndexError.*, loss.py line 1"),
    ],
)
def test_a_loss_of_ones_own_that_is_none(tmp_path, monkeypatch, source, said):
    (tmp_path / "loss.py").write_text(source)
    monkeypatch.setattr(plugins, "FOLDERS", [str(tmp_path)])
    plugins._file.cache_clear()
    with pytest.raises(UserError, match=f"config.learner.loss=loss.py:loss {said}"):
        losses.find("loss.py:loss")


def test_a_learner_with_other_numbers_than_the_sampler(tiny_config, tiny_params, batch):
    """With `rescore_fresh` ratios begin at 1 however far the sampler's log-probs are, and weights stop at the cap."""
    rollouts, rewards = batch
    off = 0.5 * np.random.default_rng(1).standard_normal(rollouts.logprobs.shape).astype(np.float32)
    other = dataclasses.replace(rollouts, logprobs=rollouts.logprobs + off * (rollouts.logprobs != 0))
    spec = dataclasses.replace(SPEC, minibatches=1, rescore_fresh=True)
    _, info = step(tiny_config, tiny_params, (other, rewards), spec)
    assert info["clip_fraction"] == 0 and info["ratio_max"] == 1
    assert info["logprob_diff_clipped"] > 0.3 and info["logprob_diff_k3"] > 0.1 and info["logprob_diff_max"] > 1
    plain = step(tiny_config, tiny_params, (other, rewards), dataclasses.replace(spec, rescore_fresh=False))[1]
    assert plain["clip_fraction"] > 0.1 and plain["ratio_max"] > spec.ratio_cap > 1
    assert plain["grad_norm"] != info["grad_norm"]
    # Where the sampler's numbers are the learner's, nothing changes: in the first minibatch and in later ones.
    logp, behaviour = _exact(tiny_config, tiny_params, rollouts), rollouts
    exact = dataclasses.replace(behaviour, logprobs=logp)
    two = dataclasses.replace(SPEC, learning_rate=1e-3)
    want, _ = step(tiny_config, tiny_params, (exact, rewards), two)
    got, _ = step(tiny_config, tiny_params, (exact, rewards), dataclasses.replace(two, rescore_fresh=True), scored=True)
    for x, y in zip(jax.tree.leaves(got.params), jax.tree.leaves(want.params), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


def _exact(config, params, rollouts):
    """The policy's log-probs of the completions, [P, G, T]."""
    rows, logp = np.zeros((P, G, S + T), np.int32), np.zeros((P, G, T), np.float32)
    n, m = rollouts.prompt_lengths, rollouts.lengths
    for p, g in np.ndindex(P, G):
        rows[p, g, : n[p]] = rollouts.prompts[p, : n[p]]
        rows[p, g, n[p] : n[p] + m[p, g]] = rollouts.tokens[p, g, : m[p, g]]
    whole = np.asarray(_logp(params, config, rows.reshape(P * G, -1), (n[:, None] + m).ravel())).reshape(rows.shape)
    for p, g in np.ndindex(P, G):
        logp[p, g, : m[p, g]] = whole[p, g, n[p] : n[p] + m[p, g]]
    return logp


def test_the_heads_products_take_the_policys_dtype(tiny_config):
    """In bfloat16 no product with the vocabulary takes float32 operands, forward or backward."""
    config = dataclasses.replace(tiny_config, vocab_size=1031, num_tokens=1031)

    def loss(hidden, head):
        return policy.scoring.score(hidden, head, jnp.zeros(6, jnp.int32), 0.8, 1031, 4)[0].sum()

    args = jax.ShapeDtypeStruct((6, 16), jnp.bfloat16), jax.ShapeDtypeStruct((config.vocab_size, 16), jnp.bfloat16)
    text = jax.jit(jax.grad(loss, (0, 1))).lower(*args).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line and "1031" in line]
    assert len(products) == 4  # logits twice, and the gradients of states and head
    for line in products:
        taken, given = line.rsplit(":", 1)[1].split("->")
        assert "f32" in given and taken.count("bf16") == 2, line


def test_gradients_are_added_up_once_for_all_micro_batches(tiny_config, batch):
    """Over `data` no device hears of another within the loop over micro-batches."""
    mesh = sharding.make_mesh(8, 1, 1)
    params = jax.eval_shape(lambda: policy.init(tiny_config, jax.random.key(0)))
    rollouts, rewards = batch
    a, weights = learner.advantages(rewards), np.ones((P, G), np.float32)
    data = gradients.Batch(
        rollouts.prompts, rollouts.prompt_lengths, rollouts.tokens, rollouts.lengths, rollouts.logprobs,
        rollouts.logprobs, None, np.zeros(P, np.int32), a, weights,
    )  # fmt: skip
    traced = jax.make_jaxpr(lambda p, d: gradients.gradients(p, d, jnp.bool(True), None, tiny_config, SPEC, mesh))(
        params, data
    )
    found = []

    def walk(jaxpr, inside):
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            if name.startswith(("psum", "all_reduce", "reduce_scatter", "all_gather")):
                found.append((inside, sum(x.aval.size for x in equation.invars)))
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    walk(inner, inside or name == "while")

    walk(traced.jaxpr, False)
    assert not any(inside for inside, _ in found)
    assert sum(size for _, size in found) >= sum(x.size for x in jax.tree.leaves(params))


def test_float16_scales_its_loss(tiny_config, tiny_params, batch):
    """Gradients are float32's within 2%; one that overflows costs its step and halves the scale."""
    _, want = step(tiny_config, tiny_params, batch, STILL)
    state, info = step(tiny_config, tiny_params, batch, STILL, dtype=jnp.float16)
    assert info["grad_norm"] == pytest.approx(want["grad_norm"], rel=0.02) and info["loss_scale"] == 2**15
    assert state.loss_scale.steps == STILL.minibatches
    rollouts, rewards = batch
    huge = dataclasses.replace(STILL, advantage_std=False)  # times 1e6, more than float16 holds
    state, info = step(tiny_config, tiny_params, (rollouts, 1e6 * rewards), huge, dtype=jnp.float16)
    assert info["loss_scale"] == 2**13 and info["grad_norm"] == 0
    start = jax.tree.map(lambda x: np.asarray(jnp.asarray(x, jnp.float16), np.float32), tiny_params)
    jax.tree.map(np.testing.assert_array_equal, state.master, start)


def test_a_loss_scale_grows():
    scale = learner.LossScale.start()
    for _ in range(499):
        scale = scale.after(True)
    assert scale.scale == 2**15 and scale.after(True).scale == 2**16 and scale.after(False).scale == 2**14
    assert scale.after(True).steps == scale.after(False).steps == 0


def test_prompts_of_one_token(tiny_config, tiny_params, batch):
    """Nothing is shared then; the gradient is that of the same rows with room for longer prompts."""
    rollouts, rewards = batch
    short = dataclasses.replace(rollouts, prompt_lengths=np.ones_like(rollouts.prompt_lengths))
    least = dataclasses.replace(short, prompts=short.prompts[:, :1])
    (a, info), (b, other) = (step(tiny_config, tiny_params, (x, rewards)) for x in (short, least))
    for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
    assert other["grad_norm"] == pytest.approx(info["grad_norm"], rel=1e-4)


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
