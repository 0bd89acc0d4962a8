"""The sampler: prompts are prefilled in blocks, and rows are decoded in jitted chunks.

A slot holds one row: one completion of one question, with its prompt's keys and values. When a row ends, its slot goes
to the next row at the end of the chunk; when no row waits, those that are left move together and fewer slots
are decoded. Every device decodes its own rows in its own loop: sampling is data-parallel with copied weights, and only
a `tensor` axis of the mesh makes devices talk within a step.

No large program depends on the number of questions or completions, so that all calls of a run share them: one that
prefills, another for short prompts where others are long, and one that decodes for each of three numbers of slots.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dots_jax.core import sharding
from dots_jax.core.arithmetic import ceil_div
from dots_jax.policy import scoring, transformer
from dots_jax.rollout import draw, kv
from dots_jax.rollout.layout import SamplerSpec, default_slots
from dots_jax.rollout.types import Rollouts


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Slots:
    """R rows being decoded."""

    row: jax.Array  # int32 [R], where it stands in the output; past its end: an empty slot
    question: jax.Array  # int32 [R], names the random stream together with the next
    completion: jax.Array  # int32 [R], its number in the group
    limit: jax.Array  # int32 [R], the most tokens of it
    token: jax.Array  # int32 [R], the latest
    position: jax.Array  # int32 [R], where that stands in the row
    start: jax.Array  # int32 [R], the slot of its cache where the prompt begins
    count: jax.Array  # int32 [R], tokens drawn so far
    done: jax.Array  # bool [R]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Queue:
    """Rows that may be admitted, at most R of one device."""

    rows: _Slots  # as they start
    source: jax.Array  # int32 [R], the prompt's place in the prefilled block
    size: jax.Array  # int32 [1]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Drawn:
    """What a chunk has drawn."""

    row: jax.Array  # int32 [R], of the output
    start: jax.Array  # int32 [R], tokens that it had before
    count: jax.Array  # int32 [R], tokens that it has now
    tokens: jax.Array  # int32 [R, W], 0 past the end
    logprobs: jax.Array  # float32 [R, W]
    finished: jax.Array  # bool [R], a stop id has been drawn
    done: jax.Array  # bool [R]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Output:
    """All N rows."""

    tokens: jax.Array  # int32 [N, T]
    logprobs: jax.Array  # float32 [N, T]
    lengths: jax.Array  # int32 [N]
    finished: jax.Array  # bool [N]


def sample(
    params: dict,
    model_config: transformer.ModelConfig,
    prompts: np.ndarray,
    prompt_lengths: np.ndarray,
    key: jax.Array,
    group_size: int,
    max_tokens: int,
    temperature: float,
    stop_ids: tuple[int, ...],
    *,
    chunk: int = 32,
    slots: int = 0,
    capacity: tuple[int, int] = (0, 0),
    limits: np.ndarray | None = None,
    top_p: float = 1.0,
    on_rows: Callable[[np.ndarray, np.ndarray, np.ndarray], None] | None = None,
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
      chunk: decode steps between looks at the rows.
      slots: rows decoded at a time over all devices; 0: `default_slots` on each.
      capacity: tokens of prompt and completion that the programs are compiled for, if more than the call's: calls that
        have it, `slots`, `chunk` and the number of stop ids in common share their programs.
      limits: int32 [P, G], a lower T for single rows.
      top_p: below 1, tokens are drawn from the fewest most probable ones whose mass reaches it, and from all that tie
        with the last of them. The log-probs stay those of the whole distribution, which is then not the one that
        was sampled from: for evaluation, not for training.
      on_rows: called as `on_rows(rows [n], tokens [n, T], lengths [n])` on the host with the rows that have ended in a
        chunk, p * G + g for completion g of question p, on every process, while the next chunk runs; rows that end in
        the last chunk are in the returned rollouts alone. The arrays are read-only.
      mesh: where the parameters lie; by default their own.
    """
    if mesh is None:
        params = jax.tree.map(jnp.asarray, params)
        leaf = jax.tree.leaves(params)[0]
        mesh = getattr(leaf.sharding, "mesh", None) or sharding.make_mesh(devices=list(leaf.devices()))
    shards, (P, S) = sharding.num_row_shards(mesh), prompts.shape
    rows = ceil_div(P, shards) * group_size  # of one device
    width, longest = max(S, capacity[0]), max(max_tokens, capacity[1])
    dtype = jax.tree.leaves(params)[0].dtype
    chunk, platform = min(chunk, longest), sharding.platform(mesh)
    slots = ceil_div(slots, shards) or default_slots(platform)
    spec = SamplerSpec(model_config, mesh, platform, dtype, slots, width, longest, chunk)
    limits = np.full((P, group_size), max_tokens) if limits is None else np.asarray(limits).clip(1, max_tokens)
    batch = _Batch(spec, np.asarray(prompts), np.asarray(prompt_lengths), limits, params)
    greedy, temperature, top_p = np.bool_(temperature == 0), np.float32(temperature or 1.0), np.float32(top_p)
    weights = _decode_weights(params, spec)
    stop_ids = np.array(sorted(stop_ids), np.int32)

    size = spec.size_for(rows)
    slots, cache, output = _start(size, rows, max_tokens, spec)
    live, ended = size, None
    while True:
        slots, cache = batch.admit(slots, cache)
        if not batch.alive.any():
            break
        if not batch.waiting and (bound := spec.live_bound(batch.alive.max())) < live:
            live, size = bound, spec.size_for(bound)
            order = _order(slots, size, spec)
            slots = _take(slots, order, spec)
            cache = [_take(cache.pop(0), order, spec) for _ in range(len(cache))]
        slots, cache, drawn, flags = _decode(weights, slots, cache, key, temperature, greedy, top_p, stop_ids, spec)
        output = _store(output, drawn, spec)
        if ended is not None:
            row, is_new, tokens, lengths = jax.device_get(ended)
            device = np.arange(len(row)) // (len(row) // shards)
            on_rows((device * rows + row)[is_new], tokens[is_new], lengths[is_new])
        ended = _ended(output, drawn, spec) if on_rows else None
        batch.alive = np.array(flags)
    return _finish(jnp.asarray(prompts), jnp.asarray(prompt_lengths), output, group_size, spec)


class _Batch:
    """The questions of a call, on the host: which are prefilled, which rows have slots, and how many are alive."""

    def __init__(self, spec: SamplerSpec, prompts: np.ndarray, lengths: np.ndarray, limits: np.ndarray, params: dict):
        self.spec, self.params = spec, params
        self.prompts, self.lengths, self.limits = prompts, lengths, limits
        self.shards = sharding.num_row_shards(spec.mesh)
        self.group_size = limits.shape[1]
        self.per_shard = ceil_div(len(prompts), self.shards)  # questions of a device
        # Of each device: its questions, how many are prefilled, rows that have had a slot, rows alive.
        self.questions = (len(prompts) - np.arange(self.shards) * self.per_shard).clip(0, self.per_shard)
        self.prefilled, self.block = 0, None
        self.admitted, self.alive = np.zeros(self.shards, int), np.zeros(self.shards, int)

    @property
    def waiting(self) -> bool:
        """Whether a row of any device has had no slot."""
        return bool((self.admitted < self.questions * self.group_size).any())

    def admit(self, slots: _Slots, cache: list) -> tuple[_Slots, list]:
        """Fills free slots with rows that wait, prefilling their questions."""
        size = len(slots.row) // self.shards
        while True:
            ready = np.minimum(self.questions, self.prefilled) * self.group_size - self.admitted
            count = np.minimum(ready, size - self.alive)
            if count.any():
                slots, cache = _admit(slots, cache, self.block, self.queue(count, size), self.spec)
                self.admitted, self.alive = self.admitted + count, self.alive + count
            elif self.waiting and not ready.any() and (self.alive < size).any():
                self.prefill()
            else:
                return slots, cache

    def prefill(self) -> None:
        """The keys and values of the next block of each device's questions."""
        n, S = self.spec.prefill_questions, self.spec.prefill_widths[-1]
        tokens, lengths = np.zeros((self.shards, n, S), np.int32), np.ones((self.shards, n), np.int32)
        for device, count in enumerate(self.questions):
            ids = device * self.per_shard + np.arange(self.prefilled, min(self.prefilled + n, count))
            tokens[device, : len(ids), : self.prompts.shape[1]] = self.prompts[ids]
            lengths[device, : len(ids)] = self.lengths[ids]
        width = next(width for width in self.spec.prefill_widths if width >= lengths.max())
        prompts = tokens.reshape(-1, S)[:, :width], lengths.ravel()
        self.block = _prefill(self.params, *jax.device_put(prompts, sharding.rows(self.spec.mesh)), self.spec)
        self.prefilled += n

    def queue(self, count: np.ndarray, size: int) -> _Queue:
        """The next `count` [devices] rows of each device."""
        index = np.arange(size)
        row = np.minimum(self.admitted[:, None] + index, self.per_shard * self.group_size - 1)
        local, completion = np.divmod(row, self.group_size)
        question = np.minimum(np.arange(self.shards)[:, None] * self.per_shard + local, len(self.prompts) - 1)
        last = self.lengths[question] - 1
        rows = _Slots(
            row, question, completion, self.limits[question, completion], self.prompts[question, last], last,
            self.spec.first_slot(last), np.zeros_like(row), row < 0,
        )  # fmt: skip
        source = local % self.spec.prefill_questions
        queue = _Queue(rows, source, count[:, None])
        queue = jax.tree.map(lambda x: x.reshape(-1).astype(bool if x.dtype == bool else np.int32), queue)
        return jax.device_put(queue, sharding.rows(self.spec.mesh))


@functools.partial(jax.jit, static_argnames="spec")
def _decode_weights(params: dict, spec: SamplerSpec):
    return jax.lax.with_sharding_constraint(*transformer.decode_weights(params, spec.model_config, spec.mesh))


@functools.partial(jax.jit, static_argnames="spec")
def _prefill(params: dict, prompts: jax.Array, lengths: jax.Array, spec: SamplerSpec) -> list:
    """The cache of prompts [B, S], as `kv.copy_prompts` takes it."""
    with jax.sharding.use_abstract_mesh(spec.mesh.abstract_mesh):
        _, (keys, values) = transformer.hidden(params, spec.model_config, prompts, keep_kv=True)
    return kv.of_prompts(keys, values, lengths, spec)


@functools.partial(jax.jit, static_argnames=("slots", "rows", "max_tokens", "spec"))
def _start(slots: int, rows: int, max_tokens: int, spec: SamplerSpec) -> tuple[_Slots, list, _Output]:
    """Empty slots and room for the output, so many of each device."""
    shards = sharding.num_row_shards(spec.mesh)
    zeros, out = jnp.zeros(slots * shards, jnp.int32), jnp.zeros((rows * shards, max_tokens), jnp.int32)
    empty = _Slots(zeros + rows, *[zeros] * 7, zeros == 0)
    output = _Output(out, out.astype(jnp.float32), out[:, 0], out[:, 0] > 0)
    empty, output = jax.lax.with_sharding_constraint((empty, output), sharding.rows(spec.mesh))
    return empty, kv.empty(slots * shards, spec), output


@functools.partial(jax.jit, static_argnames="spec", donate_argnames=("slots", "cache"))
def _admit(slots: _Slots, cache: list, block: list, queue: _Queue, spec: SamplerSpec) -> tuple[_Slots, list]:
    """Hands free slots to the first rows of the queue."""

    def admit(slots: _Slots, cache: list, block: list, queue: _Queue):
        free = jnp.argsort(~slots.done)  # stable: free slots first
        taken = jnp.arange(len(free)) < queue.size
        at = jnp.where(taken, free, len(free))
        slots = jax.tree.map(lambda old, new: old.at[at].set(new, mode="drop"), slots, queue.rows)
        return slots, kv.copy_prompts(cache, block, queue.source, free, queue.size[0])

    slots, cache = sharding.per_device(admit, spec.mesh)(slots, cache, block, queue)
    return slots, kv.place(cache, spec)


@functools.partial(jax.jit, static_argnames=("size", "spec"))
def _order(slots: _Slots, size: int, spec: SamplerSpec) -> jax.Array:
    """The slots [devices * size] of rows that live, longest first."""
    key = jnp.where(slots.done, 1, -slots.position)
    return sharding.per_device(lambda key: jnp.argsort(key)[:size], spec.mesh)(key)


@functools.partial(jax.jit, static_argnames="spec")
def _take(tree, order: jax.Array, spec: SamplerSpec):
    """Some of each device's slots."""
    take = sharding.per_device(lambda tree, order: jax.tree.map(lambda x: x[order], tree), spec.mesh)
    return take(tree, order)


@functools.partial(jax.jit, static_argnames="spec", donate_argnames=("slots", "cache"))
def _decode(
    weights: dict,
    slots: _Slots,
    cache: list,
    key: jax.Array,
    temperature: jax.Array,
    greedy: jax.Array,
    top_p: jax.Array,
    stop_ids: jax.Array,
    spec: SamplerSpec,
) -> tuple[_Slots, list, _Drawn, jax.Array]:
    """Up to `chunk` tokens for every live row; also how many live, of each device, for the host."""

    def decode(weights, key, temperature, greedy, top_p, stop_ids, slots: _Slots, cache: list):
        model_config, W = spec.model_config, spec.chunk
        keys = draw.row_keys(key, slots.question, slots.completion)
        start = slots
        num_live = jnp.where(slots.done, 0, jnp.arange(1, len(slots.done) + 1)).max() if spec.spares_rows else None

        def live(carry):
            step, slots, *_ = carry
            rows_left = ~slots.done.all()
            if spec.mesh.shape["tensor"] > 1:
                # The body then holds collectives, and XLA wants every device to run them equally often.
                rows_left = jax.lax.pmax(rows_left.astype(jnp.int32), sharding.BATCH) > 0
            return (step < W) & rows_left

        def body(carry):
            step, slots, cache, tokens, logprobs, finished = carry
            alive = ~slots.done
            attend = functools.partial(kv.attend, spec, alive, slots.start, slots.position, step)
            hidden, cache = transformer.decode_step(
                weights, model_config, slots.token, slots.position, cache, attend, num_live
            )

            def logits(hidden: jax.Array):
                head = transformer.head(weights)
                return scoring.distribution(hidden, head, temperature, model_config.num_tokens)

            x = transformer.on_live_rows(num_live, logits, hidden)
            token, logp = draw.choose(x, draw.uniform(keys, slots.count), greedy, top_p)
            token = jnp.where(alive, token, 0)
            stopped = alive & jnp.isin(token, stop_ids)
            count = slots.count + alive
            slots = dataclasses.replace(
                slots, token=token, position=slots.position + alive, count=count,
                done=slots.done | stopped | (count >= slots.limit),
            )  # fmt: skip
            logp = jnp.where(alive, logp, 0.0)
            return step + 1, slots, cache, tokens.at[step].set(token), logprobs.at[step].set(logp), finished | stopped

        R = len(slots.row)
        carry = (
            jnp.int32(0), slots, kv.begin_chunk(cache, R, spec), jnp.zeros((W, R), jnp.int32),
            jnp.zeros((W, R), jnp.float32), jnp.zeros(R, bool),
        )  # fmt: skip
        _, slots, cache, tokens, logprobs, finished = jax.lax.while_loop(live, body, carry)
        cache = kv.end_chunk(cache, start.start + start.position, spec)
        drawn = _Drawn(start.row, start.count, slots.count, tokens.T, logprobs.T, finished, slots.done)
        return slots, cache, drawn, (~slots.done).sum()[None]

    decode = sharding.per_device(decode, spec.mesh, 6)
    slots, cache, drawn, alive = decode(weights, key, temperature, greedy, top_p, stop_ids, slots, cache)
    return slots, kv.place(cache, spec), drawn, jax.lax.with_sharding_constraint(alive, sharding.replicated(spec.mesh))


@functools.partial(jax.jit, static_argnames="spec", donate_argnames="output")
def _store(output: _Output, drawn: _Drawn, spec: SamplerSpec) -> _Output:
    """The output with what a chunk has drawn."""

    def store(output: _Output, drawn: _Drawn):
        row = jnp.where(drawn.count > drawn.start, drawn.row, len(output.lengths))
        step = jnp.arange(drawn.tokens.shape[1])
        column = jnp.where(
            step < (drawn.count - drawn.start)[:, None], drawn.start[:, None] + step, output.tokens.shape[1]
        )
        at = row[:, None], column
        return _Output(
            output.tokens.at[at].set(drawn.tokens, mode="drop"),
            output.logprobs.at[at].set(drawn.logprobs, mode="drop"),
            output.lengths.at[row].set(drawn.count, mode="drop"),
            output.finished.at[row].set(drawn.finished, mode="drop"),
        )

    return sharding.per_device(store, spec.mesh)(output, drawn)


@functools.partial(jax.jit, static_argnames="spec")
def _ended(output: _Output, drawn: _Drawn, spec: SamplerSpec):
    """Rows of each device that have ended in a chunk, whether a slot holds one, and its tokens and length."""

    def ended(output: _Output, drawn: _Drawn):
        row = jnp.minimum(drawn.row, len(output.lengths) - 1)
        return row, drawn.done & (drawn.count > drawn.start), output.tokens[row], output.lengths[row]

    out = sharding.per_device(ended, spec.mesh)(output, drawn)
    return jax.lax.with_sharding_constraint(out, sharding.replicated(spec.mesh))


@functools.partial(jax.jit, static_argnames=("group_size", "spec"))
def _finish(prompts: jax.Array, lengths: jax.Array, output: _Output, group_size: int, spec: SamplerSpec) -> Rollouts:
    P = len(prompts)
    tokens, logprobs, counts, finished = (
        x.reshape(-1, group_size, *x.shape[1:])[:P]
        for x in (output.tokens, output.logprobs, output.lengths, output.finished)
    )
    return Rollouts(prompts, lengths, tokens, counts, logprobs, finished)
