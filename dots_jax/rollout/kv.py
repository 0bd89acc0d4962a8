"""The keys and values of rows that are decoded, which lie in one of two ways.

In both a cache is a list over layers of (keys, values), each a tuple of pieces of the row's slots, one after the other.

`SamplerSpec.fused`: one piece [R, C, K, E], which the kernel reads. The row's tokens lie from slot 0 on, and every step
writes its own.

Elsewhere: keys [R, K, E, C_i], which a CPU multiplies fast, and values [R, K, C_i, E]. No more pieces are read than the
longest row needs. A chunk's own tokens lie apart until it ends, and are then copied as a whole, for which rows begin
where their chunks are whole ones.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from dots_jax.core import sharding
from dots_jax.policy import attention
from dots_jax.rollout.layout import SamplerSpec


def _lay(k: jax.Array, v: jax.Array, spec: SamplerSpec) -> tuple[jax.Array, jax.Array]:
    """Keys and values [R, C, K, E] as they lie in a piece."""
    return (k, v) if spec.fused else (k.transpose(0, 2, 3, 1), v.swapaxes(1, 2))


def _axes(spec: SamplerSpec) -> tuple[int, int]:
    """The axes of slots, in pieces of keys and of values."""
    return (1, 1) if spec.fused else (3, 2)


def split(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Where rows and heads of a cache lie: on the devices that compute them."""
    return NamedSharding(mesh, PartitionSpec(sharding.BATCH, "tensor"))  # fused: `tensor` is 1


def place(cache: list, spec: SamplerSpec) -> list:
    """The cache, inside jit, where `split` says."""
    return jax.lax.with_sharding_constraint(cache, split(spec.mesh))


def empty(slots: int, spec: SamplerSpec) -> list:
    """A cache of so many rows, over all devices."""
    c = spec.model_config
    zeros = [jnp.zeros((slots, n, c.num_kv_heads, c.head_width), spec.dtype) for n in spec.pieces]
    pieces = [_lay(x, x, spec) for x in zeros]
    layer = tuple(k for k, _ in pieces), tuple(v for _, v in pieces)
    return place([layer] * c.num_layers, spec)


def of_prompts(keys: jax.Array, values: jax.Array, lengths: jax.Array, spec: SamplerSpec) -> list:
    """The cache of prompts that have keys and values [L, B, T, K, E]: as many pieces as they reach into."""
    W, width = spec.chunk, spec.prompt_slots(keys.shape[2])
    bounds = [end for end in np.cumsum(spec.pieces) if end < width]

    def shift(x: jax.Array, start: jax.Array):  # [L, T, K, E] of a prompt, which then begins at `start`
        x = jnp.pad(x, ((0, 0), (W, W), (0, 0), (0, 0)))
        return jax.lax.dynamic_slice_in_dim(x, W - start, width, axis=1)

    def cut(*layer: jax.Array):
        return tuple(tuple(jnp.split(x, bounds, axis)) for x, axis in zip(_lay(*layer, spec), _axes(spec), strict=True))

    keys, values = (jax.vmap(shift, (1, 0), 1)(x, spec.first_slot(lengths - 1)) for x in (keys, values))
    return place([cut(*layer) for layer in zip(keys, values, strict=True)], spec)


def copy_prompts(cache: list, prompts: list, source: jax.Array, rows: jax.Array, count: jax.Array) -> list:
    """The cache with `prompts[source[i]]` in `rows[i]`, for the first `count` i."""

    def copy(i: jax.Array, cache: list):
        def place(x, prompts):
            prompt = jax.lax.dynamic_slice_in_dim(prompts, source[i], 1)
            return jax.lax.dynamic_update_slice(x, prompt, (rows[i], 0, 0, 0))

        def fill(pieces, prompts):
            n = len(prompts)
            return (*map(place, pieces[:n], prompts), *pieces[n:])

        return [tuple(map(fill, layer, prompt)) for layer, prompt in zip(cache, prompts, strict=True)]

    return jax.lax.fori_loop(0, count, copy, cache)


def begin_chunk(cache: list, rows: int, spec: SamplerSpec) -> list:
    """The cache of so many rows as `attend` takes it: where it is in pieces, with room for the chunk's tokens."""
    if spec.fused:
        return cache
    c = spec.model_config
    zeros = jnp.zeros((rows, spec.chunk, c.num_kv_heads, c.head_width), spec.dtype)
    return [(*layer, *_lay(zeros, zeros, spec)) for layer in cache]


def attend(
    spec: SamplerSpec, alive: jax.Array, start: jax.Array, position: jax.Array, step: jax.Array,
    layer: tuple, q: jax.Array, k: jax.Array, v: jax.Array,
) -> tuple[jax.Array, tuple]:  # fmt: skip
    """One token's attention for every row, as `transformer.decode_step` asks for it.

    Args:
      spec: of the cache.
      alive: bool [R]; the result of other rows means nothing.
      start: int32 [R], the row's first slot.
      position: int32 [R], the token's, from there.
      step: int32 [], of the chunk.
      layer: of the cache, from `begin_chunk` or the step before.
      q: [R, 1, H, E].
      k: [R, 1, K, E].
      v: [R, 1, K, E].

    Returns:
      values [R, 1, H, E], and the layer with the token in it.
    """
    if spec.fused:
        at = jnp.arange(len(k)), position
        (keys,), (values,) = layer
        keys, values = (x.at[at].set(y[:, 0], mode="drop", unique_indices=True) for x, y in ((keys, k), (values, v)))
        out = attention.decode_fused(q[:, 0], keys, values, jnp.where(alive, position + 1, 1))
        return out[:, None], ((keys,), (values,))
    keys, values, *recent = layer
    recent = [
        jax.lax.dynamic_update_slice_in_dim(x, y, step, axis)
        for x, y, axis in zip(recent, _lay(k, v, spec), _axes(spec), strict=True)
    ]
    lengths = jnp.where(alive, start + position - step, 0)
    return attention.decode(q[:, 0], keys, values, start, lengths, *recent, step)[:, None], (keys, values, *recent)


def end_chunk(cache: list, at: jax.Array, spec: SamplerSpec) -> list:
    """The cache as it was before `begin_chunk`, with the chunk's tokens of each row from slot `at` int32 [R] on."""
    if spec.fused:
        return cache
    key_axis, value_axis = _axes(spec)
    return [
        (_write(keys, recent_keys, at, key_axis, spec), _write(values, recent_values, at, value_axis, spec))
        for keys, values, recent_keys, recent_values in cache
    ]


def _write(
    pieces: tuple[jax.Array, ...], recent: jax.Array, at: jax.Array, axis: int, spec: SamplerSpec
) -> tuple[jax.Array, ...]:
    """The pieces with a chunk [.., W, ..] of each row at its slot `at`; W slots along `axis`.

    Pieces and `at` are whole numbers of chunks, and what lies past the last piece is dropped.
    """
    W, out, first = recent.shape[axis], [], 0
    for piece in pieces:
        count = piece.shape[axis] // W
        chunk = at // W - first
        if spec.platform == "tpu":  # a scatter would copy the keys, to lie as it wants them and back
            own = jnp.arange(count) == chunk[:, None]
            if axis == 3:  # the product repeats the chunk: concatenated it is written copy by copy into a second cache
                slots = jnp.arange(piece.shape[axis])
                repeat = (slots % W == jnp.arange(W)[:, None]).astype(piece.dtype)
                repeated = jnp.einsum("rkew,wc->rkec", recent, repeat, precision="highest")
                out.append(jnp.where(own[:, slots // W][:, None, None], repeated, piece))
            else:
                blocks = piece.reshape(*piece.shape[:axis], count, W, -1)
                out.append(jnp.where(own[:, None, :, None, None], recent[:, :, None], blocks).reshape(piece.shape))
        else:
            chunk = jnp.where(chunk < 0, count, chunk)  # past the end, as in a later piece: dropped
            blocks = piece.reshape(*piece.shape[:axis], count, W, *piece.shape[axis + 1 :])
            index = (jnp.arange(len(piece)), *[slice(None)] * (axis - 1), chunk)
            out.append(blocks.at[index].set(recent, mode="drop").reshape(piece.shape))
        first += count
    return tuple(out)
