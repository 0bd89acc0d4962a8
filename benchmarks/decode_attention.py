"""Decode attention of one layer: inputs as a sampler has them, the bodies that there are, their times and errors."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from dots_jax.policy import attention

TOLERANCE = 0.02  # of the norm, for attention in bfloat16: eps is 0.004


def apart(x, y) -> float:
    """|x - y| / |y|, of float32 norms."""
    x, y = (jnp.asarray(v, jnp.float32) for v in (x, y))
    return float(f"{float(jnp.linalg.norm(x - y) / jnp.linalg.norm(y)):.3g}")


class Decode(NamedTuple):
    """One query for each of P x G rows; a row whose own length is 0 is dead, and its result means nothing."""

    q: jax.Array  # [P, G, H, E]
    prompt_k: jax.Array  # [P, K, S, E]
    prompt_v: jax.Array
    prompt_lengths: jax.Array  # int32 [P]
    own_k: jax.Array  # [P, G, K, C, E]
    own_v: jax.Array
    own_lengths: jax.Array  # int32 [P, G]


class Body(NamedTuple):
    """A way to compute it."""

    attend: Callable[[Decode], jax.Array]  # -> [P, G, H, E]
    lay: Callable[[Decode], Decode] = lambda x: x  # as the body wants keys and values to lie; not timed
    prompt: bool = True  # whether it reads the prompt


def _einsum(x: Decode) -> jax.Array:
    return attention.shared_prompt(*x[:6], x.own_lengths.max(1) - 1)  # a question's rows are equally long there


def _einsum_of_rows(x: Decode) -> jax.Array:
    """The same for rows of different lengths: a question for each row."""
    G = x.own_k.shape[1]
    k, v, n = (jnp.repeat(y, G, axis=0) for y in x[1:4])
    single = [y.reshape(-1, 1, *y.shape[2:]) for y in (x.q, x.own_k, x.own_v)]
    return attention.shared_prompt(single[0], k, v, n, *single[1:], x.own_lengths.ravel() - 1).reshape(x.q.shape)


def _flat(x: Decode) -> Decode:
    k, v = (y.reshape(-1, *y.shape[2:]).swapaxes(1, 2) for y in (x.own_k, x.own_v))  # [rows, C, K, E]
    return x._replace(own_k=k, own_v=v)


def _fused_own(x: Decode) -> jax.Array:
    """JAX's attention with key and value lengths, cuDNN's kernel on a GPU, over a row's own keys alone."""
    q, lengths = x.q.reshape(-1, 1, *x.q.shape[2:]), jnp.maximum(x.own_lengths.ravel(), 1)  # cuDNN wants at least 1
    kind = "cudnn" if jax.default_backend() == "gpu" else "xla"
    ones = jnp.ones_like(lengths)
    out = jax.nn.dot_product_attention(
        q, x.own_k, x.own_v, query_seq_lengths=ones, key_value_seq_lengths=lengths, implementation=kind
    )
    return out.reshape(x.q.shape)


BODIES = {"einsum": Body(_einsum), "fused, own keys alone": Body(_fused_own, _flat, prompt=False)}


def inputs(P: int, G: int, S: int, C: int, H: int, K: int, E: int, mean: float, dead: float) -> Decode:
    """Random ones in bfloat16: log-normal own lengths, a share `dead` of them 0."""
    rng, keys = np.random.default_rng(0), jax.random.split(jax.random.key(0), 5)
    shapes = (P, G, H, E), (P, K, S, E), (P, K, S, E), (P, G, K, C, E), (P, G, K, C, E)
    q, pk, pv, k, v = (jax.random.normal(key, s, jnp.bfloat16) for key, s in zip(keys, shapes, strict=True))
    lengths = common.lognormal(rng, (P, G), mean, 0.8, C) * (rng.permutation(P * G).reshape(P, G) >= dead * P * G)
    return Decode(q, pk, pv, jnp.full(P, S, jnp.int32), k, v, jnp.asarray(lengths, jnp.int32))


def check(body: Body, x: Decode, calls: int = 10) -> dict:
    """Time of a body, the bytes that live rows need per second, and its error against the einsum in float32.

    The einsum's rows end with the longest of their question: only that one is compared.
    """
    x = x if body.prompt else x._replace(prompt_lengths=jnp.zeros_like(x.prompt_lengths))
    lengths = np.asarray(x.own_lengths)
    live = (lengths > 0) & (lengths == lengths.max(1, keepdims=True))
    with jax.default_matmul_precision("highest"):
        float32 = Decode(*(y.astype(jnp.float32) if jnp.issubdtype(y.dtype, jnp.floating) else y for y in x))
        want = np.asarray(jax.jit(_einsum_of_rows)(float32))[live]
        del float32
    laid = jax.jit(body.lay)(x)
    attend = jax.jit(lambda q, x: body.attend(x._replace(q=q)))
    error = apart(np.asarray(attend(x.q, laid))[live], want)
    seconds = common.fastest(lambda q: attend(q, laid), x.q, calls=calls)
    number = 2 * x.own_k.shape[2] * x.own_k.shape[4] * x.own_k.dtype.itemsize  # of a token's keys and values
    useful = number * int(lengths.sum() + (np.asarray(x.prompt_lengths) * (lengths > 0).any(1)).sum())
    there = x.own_k.nbytes + x.own_v.nbytes + (x.prompt_k.nbytes + x.prompt_v.nbytes) * body.prompt
    return {
        "microseconds": round(1e6 * seconds, 1),
        "useful_gb_s": round(useful / seconds / 1e9, 2),
        "useful_share": round(useful / there, 4),
        "apart": error,
        "ok": error < TOLERANCE,
    }
