"""What one micro-batch of the update computes, by its program: no more products than its tokens need."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from dots_jax import learner, policy, rollout
from dots_jax.core import sharding
from dots_jax.learner import gradients
from dots_jax.policy import transformer

P, G, S, T = 4, 4, 9, 64
MODEL = transformer.ModelConfig(512, 128, 3, 4, 2, 512, 1e4, 1e-6, True, 1024, 512)


def test_log_weights_of_the_buffer():
    """Of what the policy itself generated 0; of another's behaviour the sum over real tokens; empty slots give 0."""
    spec = dataclasses.replace(learner.UpdateSpec.from_config(common.get_config()), micro_tokens=128, remat="none")
    params, random = policy.init(MODEL, jax.random.key(0)), np.random.default_rng(0)
    groups = learner.Groups.empty((1, P), G, S, T)
    prompts, tokens = (random.integers(3, 500, (1, P, *shape)) for shape in ((S,), (G, T)))
    lengths = random.integers(1, T, (1, P, G))
    size = np.full((1, P), S)
    whole = np.concatenate([np.repeat(prompts, G, 1).reshape(P * G, S), tokens.reshape(P * G, T)], 1)
    logp, entropy = policy.token_logprobs(params, MODEL, whole, np.full(P * G, S + T), spec.temperature)
    behaviour = np.asarray(logp)[:, S:].reshape(1, P, G, T)
    moved = random.normal(size=behaviour.shape)
    step = np.array([[3, -1, 4, 4]])
    rollouts = dataclasses.replace(
        groups.rollouts, prompts=prompts, prompt_lengths=size, tokens=tokens, lengths=lengths,
        logprobs=behaviour - moved,
    )  # fmt: skip
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    buffer = jax.tree.map(jnp.asarray, dataclasses.replace(groups, rollouts=rollouts, step=step))
    found, count = learner.log_weights(params, buffer, MODEL, spec, mesh)
    real = (np.arange(T) < lengths[..., None]) & (step >= 0)[..., None, None]
    np.testing.assert_allclose(found, np.where(real, moved, 0).sum(-1)[0], atol=2e-4)
    assert count == real.sum()
    rollouts = rollout.take_groups(jax.tree.map(lambda x: jnp.asarray(x)[0], rollouts), np.array([2, 0]), mesh)
    shown = np.arange(T) < lengths[0, [2, 0], :, None]
    for got, expected in zip(learner.token_scores(params, rollouts, MODEL, spec, mesh), (logp, entropy), strict=True):
        expected = np.asarray(expected)[:, S:].reshape(P, G, T)[[2, 0]]
        np.testing.assert_allclose(got, np.where(shown, expected, 0), atol=2e-4)


def products(jaxpr, times=1):
    """FLOPs of the matrix products in a program: of a loop's every turn where their number is known, of the branch
    with the most; a turn of each other loop is an entry of its own.
    """
    total, loops = 0, []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * times * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
        values = [x for x in equation.params.values() if x is not None]
        inner = [getattr(x, "jaxpr", x) for x in jax.tree.leaves(values, is_leaf=lambda x: hasattr(x, "eqns"))]
        turns = equation.params["length"] if equation.primitive.name == "scan" else 1
        found = [products(x, times * turns) for x in inner if hasattr(x, "eqns")]
        loops += [entry for _, entries in found for entry in entries]
        if equation.primitive.name == "while":
            loops.append(sum(flops for flops, _ in found))
        elif found:
            total += max(flops for flops, _ in found)
    return total, loops


@pytest.mark.parametrize("remat, most", [("none", 1.2), ("named", 1.2), ("full", 1.5)])
def test_a_micro_batch_computes_little_but_what_its_tokens_need(remat, most):
    """Beside 6 FLOPs of every token and parameter: logits and attention once more on the way back, and padding."""
    spec = dataclasses.replace(
        learner.UpdateSpec.from_config(common.get_config()), micro_tokens=512, logits_chunk=256, remat=remat
    )
    params = jax.eval_shape(lambda: policy.init(MODEL, jax.random.key(0)))
    rows = jax.ShapeDtypeStruct((P, G, T), jnp.float32)
    batch = gradients.Batch(
        jnp.zeros((P, S), jnp.int32), jnp.full(P, S), jnp.zeros((P, G, T), jnp.int32), jnp.full((P, G), T), rows, rows,
        None, jnp.zeros(P, jnp.int32), jnp.ones((P, G)), jnp.ones((P, G)),
    )  # fmt: skip
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    traced = jax.make_jaxpr(lambda p, d: gradients.gradients(p, d, jnp.bool(True), None, MODEL, spec, mesh))(
        params, batch
    )
    _, loops = products(traced.jaxpr)
    layers = sum(math.prod(p.shape) for p in jax.tree.leaves(transformer.declare(MODEL)["layers"]))
    attention = 12 * MODEL.num_layers * MODEL.num_heads * MODEL.head_width * (S + T / 2)
    useful = 512 * (6 * (layers + MODEL.width * MODEL.vocab_size) + attention)
    assert useful < max(loops) <= most * useful, np.array(loops) / useful
