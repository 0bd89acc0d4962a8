"""The update: equal to the plain formula whatever its micro-batches, meshes and dtypes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from updates import REPLAY, SPEC, G, P, S, T, logprobs, step

from dots_jax import learner, policy
from dots_jax.core import sharding
from dots_jax.learner import gradients, replay
from dots_jax.learner.update import _minibatches
from dots_jax.rollout import Rollouts

STILL = dataclasses.replace(SPEC, learning_rate=1e-6, weight_decay=0.0)


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
        logp = logprobs(params, tiny_config, rows, where.sum(1) + rollouts.prompt_lengths.repeat(G))
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
    whole = np.asarray(logprobs(params, config, rows.reshape(P * G, -1), (n[:, None] + m).ravel())).reshape(rows.shape)
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
