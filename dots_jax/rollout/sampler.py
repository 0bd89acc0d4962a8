"""The sampler: prefill once per question, then decode all rows in jitted chunks.

Every device decodes its own rows in its own while loop: sampling is data-parallel with copied weights, and only a
`tensor` axis of the mesh makes devices talk within a step. The keys and values of a prompt exist once per question and
are read by its G completions. The completion cache grows between chunks, so that attention costs what the
longest live row needs. With fewer slots than questions, a question whose G rows have all ended hands its slot
to a waiting one at the next chunk; nothing of that needs the host, which looks one chunk late whether rows are left.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dots_jax.core import sharding
from dots_jax.core.arithmetic import ceil_div, round_up
from dots_jax.policy import scoring, transformer
from dots_jax.rollout import draw
from dots_jax.rollout.types import Rollouts

PREFILL_TOKENS = 32768  # prompt tokens per device and forward pass
PROMPT_STEP = 64  # at least; what every decode step reads, against a compilation for each length


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Prefilled:
    """All P questions after prefill, the first token of each completion drawn."""

    ids: jax.Array  # int32 [P], names the question's random stream
    lengths: jax.Array  # int32 [P]
    kv: list  # over layers: (keys, values) [P, K, S, E]
    limits: jax.Array  # int32 [P, G], the most tokens of each row
    token: jax.Array  # int32 [P, G]
    done: jax.Array  # bool [P, G]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Slots:
    """Q questions being decoded."""

    question: jax.Array  # int32 [Q], index into the device's questions; past their number: empty
    count: jax.Array  # int32 [Q], tokens drawn so far
    token: jax.Array  # int32 [Q, G], the latest
    done: jax.Array  # bool [Q, G]
    cache: list  # over layers: (keys, values) [Q, G, K, C, E]
    waiting: jax.Array  # int32 [1], the next question without a slot


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Output:
    """What has been drawn, for all P questions."""

    tokens: jax.Array  # int32 [P, G, T], rounded up to whole chunks
    logprobs: jax.Array  # float32 [P, G, T]
    lengths: jax.Array  # int32 [P, G]
    finished: jax.Array  # bool [P, G]


@dataclasses.dataclass(frozen=True)
class _Static:
    """What the compiled functions are specialised to."""

    model_config: transformer.ModelConfig
    mesh: jax.sharding.Mesh
    group_size: int
    max_tokens: int
    chunk: int
    slots: int  # per device; 0: as many as questions
    stop_ids: tuple[int, ...]
    greedy: bool
    top_p: float = 1.0

    def capacity(self, tokens: int) -> int:
        """Slots of a completion's cache that holds `tokens` but the last, in whole chunks."""
        unit = sharding.length_unit(sharding.platform(self.mesh))
        return round_up(round_up(max(tokens - 1, 1), self.chunk), unit)


def sample(
    params: dict,
    model_config: transformer.ModelConfig,
    prompts: jax.Array,
    prompt_lengths: jax.Array,
    key: jax.Array,
    group_size: int,
    max_tokens: int,
    temperature: float,
    stop_ids: tuple[int, ...],
    *,
    chunk: int = 128,
    slots: int = 0,
    limits: jax.Array | None = None,
    top_p: float = 1.0,
    on_chunk: Callable[[np.ndarray, np.ndarray, np.ndarray], None] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Rollouts:
    """G completions of every prompt from softmax(logits / temperature) over the tokenizer's ids.

    A row's sample depends on its prompt, `key`, its question's place in the batch, its own in the group, and on
    nothing else.

    Args:
      params: the policy's parameters.
      model_config: their shape.
      prompts: int32 [P, S], right-padded.
      prompt_lengths: int32 [P], at least 1.
      key: PRNG key.
      group_size: G.
      max_tokens: T; a row without a stop id by then is truncated.
      temperature: 0 takes the likeliest token, and log-probs are then those of temperature 1.
      stop_ids: each of them ends a row and is kept as its last token.
      chunk: decode steps between looks at finished rows.
      slots: questions decoded at a time over all devices, 0 for all.
      limits: int32 [P, G], a lower T for single rows.
      top_p: below 1, tokens are drawn from the fewest most probable ones whose mass reaches it, and from all that tie
        with the last of them. The log-probs stay those of the whole distribution, which is then not the one that
        was sampled from: for evaluation, not for training.
      on_chunk: called as `on_chunk(tokens [P, G, T], lengths [P, G], done bool [P, G])` on the host while rows are
        left, so that completions which have ended can be graded meanwhile. Rows that are done will not change, and stay
        done; of the others nothing is promised. The arrays are read-only, one chunk old, and of all questions on every
        process. One chunk is queued on the device during a call: a longer one holds it up. There is no call for
        the rows that end last, and none at all where a chunk is enough: those are in the returned rollouts alone.
      mesh: where the parameters lie; by default their own.
    """
    if mesh is None:
        params = jax.tree.map(jnp.asarray, params)
        leaf = jax.tree.leaves(params)[0]
        mesh = getattr(leaf.sharding, "mesh", None) or sharding.make_mesh(devices=list(leaf.devices()))
    shards, questions = sharding.num_row_shards(mesh), len(prompts)
    per_shard = ceil_div(questions, shards)
    whole_prompts = jnp.asarray(prompts)
    unit = sharding.length_unit(sharding.platform(mesh))
    prompts = prompts[:, : round_up(int(np.max(prompt_lengths)), max(unit, PROMPT_STEP))]
    prompts = _pad(prompts, per_shard * shards, -prompts.shape[1] % unit)
    prompt_lengths = _pad(prompt_lengths, per_shard * shards)
    limits = np.full((questions, group_size), max_tokens, np.int32) if limits is None else limits
    limits = _pad(limits, per_shard * shards).clip(1, max_tokens)
    slots = ceil_div(slots, shards) if 0 < slots < per_shard * shards else 0
    chunk = min(chunk, max(max_tokens - 1, 1))
    static = _Static(
        model_config, mesh, group_size, max_tokens, chunk, slots, tuple(sorted(stop_ids)), temperature == 0, top_p
    )
    temperature = jnp.float32(temperature or 1.0)

    weights = _decode_weights(params, static)
    prompts, prompt_lengths, limits = jax.device_put((prompts, prompt_lengths, limits), sharding.rows(mesh))
    count = jnp.int32(questions)
    prefilled, output = _prefill(params, prompts, prompt_lengths, limits, key, temperature, count, static)
    state = _start(prefilled, static)

    capacity, top, late, seen = static.capacity(chunk), 1, None, None
    while True:
        # The newest count that the host knows is one chunk old: it bounds what this chunk writes.
        need = min(top + chunk * (1 if late is None else 2), max_tokens) - 1
        while capacity < need:
            capacity = min(2 * capacity, static.capacity(max_tokens))
            grown = [_grow(kv, capacity, static) for kv in _release(state)]
            state = dataclasses.replace(state, cache=grown)
        state, output, flags = _decode(weights, prefilled, state, output, key, temperature, static)
        if late is not None:
            alive, top = (int(x) for x in jax.device_get(late))
            if not alive:
                break
            if on_chunk:
                on_chunk(*jax.device_get(seen))
        late = flags
        seen = _look(output, prefilled.limits, questions, static) if on_chunk else None
    return _finish(whole_prompts, prompt_lengths, output, questions, max_tokens)


def _pad(x: jax.Array, rows, columns=0):
    """`x` with so many rows of ones, and so many columns more."""
    missing = rows - len(x), columns
    if not any(missing):
        return x
    xp = jnp if isinstance(x, jax.Array) else np
    return xp.pad(x, [(0, n) for n in missing[: x.ndim]], constant_values=1)


def _release(state):
    """Yields the layers' caches one by one, so that each old one is freed before the next grows."""
    while state.cache:
        yield state.cache.pop(0)


@functools.partial(jax.jit, static_argnames=("questions", "static"))
def _look(output: _Output, limits: jax.Array, questions: int, static: _Static):
    """Copies for `on_chunk`, since `_decode` overwrites its output: tokens, lengths, and which rows have ended."""
    done = output.finished | (output.lengths >= limits)
    seen = output.tokens[:questions, :, : static.max_tokens], output.lengths[:questions], done[:questions]
    return jax.lax.with_sharding_constraint(seen, sharding.replicated(static.mesh))


@functools.partial(jax.jit, static_argnames=("questions", "max_tokens"))
def _finish(
    prompts: jax.Array, prompt_lengths: jax.Array, output: _Output, questions: int, max_tokens: int
) -> Rollouts:
    return Rollouts(
        prompts,
        prompt_lengths[:questions],
        output.tokens[:questions, :, :max_tokens],
        output.lengths[:questions],
        output.logprobs[:questions, :, :max_tokens],
        output.finished[:questions],
    )


@functools.partial(jax.jit, static_argnames="static")
def _decode_weights(params: dict, static: _Static):
    return jax.lax.with_sharding_constraint(*transformer.decode_weights(params, static.model_config, static.mesh))


@functools.partial(jax.jit, static_argnames="static")
def _prefill(
    params: dict,
    prompts: jax.Array,
    lengths: jax.Array,
    limits: jax.Array,
    key: jax.Array,
    temperature: float,
    questions,
    static: _Static,
):
    """Keys and values of every prompt, and the first token of each of its completions."""
    model_config, mesh, G = static.model_config, static.mesh, static.group_size
    P, S = prompts.shape
    shards = sharding.num_row_shards(mesh)
    block = max(1, min(P // shards, PREFILL_TOKENS // S))
    blocks = ceil_div(P // shards, block)
    pad = blocks * block - P // shards

    def split(x: jax.Array):  # [P, ...] -> [blocks, shards * block, ...], each shard keeping its own rows
        x = jnp.pad(x.reshape(shards, P // shards, *x.shape[1:]), ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 1))
        return x.reshape(shards, blocks, block, *x.shape[2:]).swapaxes(0, 1).reshape(blocks, -1, *x.shape[2:])

    def join(x: jax.Array):  # back
        x = x.reshape(blocks, shards, block, *x.shape[2:]).swapaxes(0, 1).reshape(shards, -1, *x.shape[2:])
        return x[:, : P // shards].reshape(P, *x.shape[2:])

    def one(x: jax.Array):
        tokens, lengths = x
        hidden, (k, v) = transformer.hidden(params, model_config, tokens, keep_kv=True)
        last = jnp.maximum(lengths - 1, 0)
        return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0], k.swapaxes(0, 1), v.swapaxes(0, 1)

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        last, k, v = (join(x) for x in jax.lax.map(one, (split(prompts), split(lengths))))
    kv = [(k[:, i], v[:, i]) for i in range(model_config.num_layers)]
    x = scoring.distribution(last, transformer.head(params), temperature, model_config.num_tokens)
    x = jnp.broadcast_to(x[:, None], (P, G, x.shape[-1]))
    ids = jnp.arange(P)
    token, logp = draw.choose(
        x, draw.uniform(draw.row_keys(key, ids, G), jnp.zeros_like(ids)), static.greedy, static.top_p
    )
    real = jnp.broadcast_to((ids < questions)[:, None], (P, G))
    stopped = real & jnp.isin(token, jnp.array(static.stop_ids))
    length = 1 + round_up(static.max_tokens - 1, static.chunk)

    def first(x: jax.Array):
        return jnp.zeros((P, G, length), x.dtype).at[:, :, 0].set(jnp.where(real, x, 0))

    output = _Output(first(token), first(logp), real.astype(jnp.int32), stopped)
    done = stopped | ~real | (limits <= 1)
    return jax.lax.with_sharding_constraint(
        (_Prefilled(ids, lengths, kv, limits, token, done), output), sharding.rows(mesh)
    )


@functools.partial(jax.jit, static_argnames="static")
def _start(prefilled: _Prefilled, static: _Static) -> _Slots:
    """Empty slots where there are fewer than questions, else every question in its own."""

    def start(prefilled):
        P, G = prefilled.token.shape
        Q, capacity = static.slots or P, static.capacity(static.chunk)
        cache = [tuple(jnp.zeros((Q, G, x.shape[1], capacity, x.shape[3]), x.dtype) for x in kv) for kv in prefilled.kv]
        if static.slots == 0:
            return _Slots(jnp.arange(P), jnp.ones(P, jnp.int32), prefilled.token, prefilled.done, cache, jnp.full(1, P))
        ones, rows = jnp.ones(Q, jnp.int32), jnp.zeros((Q, G), jnp.int32)
        return _Slots(P * ones, ones, rows, rows == 0, cache, jnp.zeros(1, jnp.int32))

    return sharding.per_device(start, static.mesh)(prefilled)


@functools.partial(jax.jit, static_argnames=("capacity", "static"))
def _grow(kv: Any, capacity: int, static: _Static):
    """One layer's completion cache with more slots."""

    def grow(kv: Any):
        return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, capacity - x.shape[3]), (0, 0))), kv)

    return sharding.per_device(grow, static.mesh)(kv)


def _admit(prefilled: _Prefilled, slots: _Slots) -> _Slots:
    """Hands the slots whose rows have all ended to waiting questions."""
    P = len(prefilled.ids)
    free = slots.done.all(1)
    question = jnp.where(free, slots.waiting + jnp.cumsum(free) - 1, slots.question)
    take = free & (question < P)
    source = jnp.minimum(question, P - 1)
    return dataclasses.replace(
        slots,
        question=question,
        count=jnp.where(take, 1, slots.count),
        token=jnp.where(take[:, None], prefilled.token[source], slots.token),
        done=jnp.where(take[:, None], prefilled.done[source], slots.done),
        waiting=slots.waiting + take.sum(),
    )


def _write(cache: jax.Array, new, index: jax.Array):
    """New [Q, G, K, E] into cache [Q, G, K, C, E] at a common index [], or at one per question [Q]."""
    new = new[..., None, :]
    if index.ndim == 0:
        return jax.lax.dynamic_update_slice_in_dim(cache, new, index, axis=3)
    return jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=2))(cache, new, index)


@functools.partial(jax.jit, static_argnames="static", donate_argnames=("slots", "output"))
def _decode(
    weights: dict,
    prefilled: _Prefilled,
    slots: _Slots,
    output: _Output,
    key: jax.Array,
    temperature: float,
    static: _Static,
):
    """Up to `chunk` tokens for every live row; also (rows or questions are left, highest count), for the host."""

    def decode(
        weights: dict, key: jax.Array, temperature: float, prefilled: _Prefilled, slots: _Slots, output: _Output
    ):
        model_config, G = static.model_config, static.group_size
        P, Q = len(prefilled.ids), len(slots.question)
        refill = static.slots > 0
        if refill:
            slots = _admit(prefilled, slots)
            source = jnp.minimum(slots.question, P - 1)
            prefilled = jax.tree.map(lambda x: x[source], prefilled)
        ids, lengths, kv = prefilled.ids, prefilled.lengths, prefilled.kv
        start, stop_ids, keys = slots.count, jnp.array(static.stop_ids), draw.row_keys(key, ids, G)

        def live(carry: Any):
            step, slots, *_ = carry
            rows_left = ~slots.done.all()
            if static.mesh.shape["tensor"] > 1:
                # The body then holds collectives, and XLA wants every device to run them equally often.
                rows_left = jax.lax.pmax(rows_left.astype(jnp.int32), sharding.BATCH) > 0
            return (step < static.chunk) & rows_left

        def body(carry: Any):
            step, slots, tokens, logprobs, added, finished = carry
            # Without refills all rows are equally long: one slice is written instead of one per question.
            index = (slots.count if refill else slots.count[0]) - 1
            hidden, cache = transformer.decode_step(
                weights, model_config, slots.token, lengths + slots.count - 1, kv, lengths, slots.cache, index, _write
            )
            x = scoring.distribution(hidden, transformer.head(weights), temperature, model_config.num_tokens)
            token, logp = draw.choose(x, draw.uniform(keys, slots.count), static.greedy, static.top_p)
            alive = ~slots.done
            token = jnp.where(alive, token, 0)
            stopped = alive & jnp.isin(token, stop_ids)
            count = slots.count + 1
            done = slots.done | stopped | (count[:, None] >= prefilled.limits)
            slots = dataclasses.replace(slots, count=count, token=token, done=done, cache=cache)
            return (
                step + 1,
                slots,
                tokens.at[step].set(token),
                logprobs.at[step].set(jnp.where(alive, logp, 0.0)),
                added + alive,
                finished | stopped,
            )

        shape = (static.chunk, Q, G)
        carry = (
            jnp.int32(0),
            slots,
            jnp.zeros(shape, jnp.int32),
            jnp.zeros(shape, jnp.float32),
            jnp.zeros((Q, G), jnp.int32),
            jnp.zeros((Q, G), bool),
        )
        _, slots, tokens, logprobs, added, finished = jax.lax.while_loop(live, body, carry)
        where, columns = slots.question, start[:, None] + jnp.arange(static.chunk)
        at = (where[:, None, None], jnp.arange(G)[:, None], columns[:, None, :])
        output = _Output(
            output.tokens.at[at].set(tokens.transpose(1, 2, 0), mode="drop"),
            output.logprobs.at[at].set(logprobs.transpose(1, 2, 0), mode="drop"),
            output.lengths.at[where].add(added, mode="drop"),
            output.finished.at[where].max(finished, mode="drop"),
        )
        left = ~slots.done.all() | (slots.waiting[0] < P)
        top = jnp.where(slots.done.all(1), 1, slots.count).max()
        return slots, output, jnp.stack([left.astype(jnp.int32), top])[None]

    decode = sharding.per_device(decode, static.mesh, 3)
    slots, output, flags = decode(weights, key, temperature, prefilled, slots, output)
    return slots, output, jax.lax.with_sharding_constraint(flags.max(0), sharding.replicated(static.mesh))
