"""Rows packed end to end into micro-batches of N tokens, and causal attention over them.

Everything in a layer but attention treats tokens alike, so that only real ones are computed. Attention lays the rows
side by side, at the narrowest of a few widths that holds the longest. Letters: R rows, n of them in a micro-batch, U
prompts that rows share, W a width, and those of `transformer`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from dots_jax.core import sharding
from dots_jax.core.arithmetic import ceil_div, round_up
from dots_jax.policy import attention

_F32 = jnp.float32
_LEAST = 16  # the narrowest width on a CPU


@dataclasses.dataclass(frozen=True)
class PackSpec:
    """What a program over micro-batches is compiled for."""

    tokens: int  # N
    widths: tuple[int, ...]  # of rows, ascending; the last holds every row
    prompt_widths: tuple[int, ...]  # of the prompts that rows come after, ascending; (0,): of none
    platform: str

    @classmethod
    def of(cls, budget: int, count: int, longest: int, longest_prompt: int, platform: str) -> "PackSpec":
        """For `count` rows of at most `longest` tokens, about `budget` tokens at a time."""
        unit = sharding.length_unit(platform)
        widths = _widths(longest, unit)
        tokens = round_up(max(min(budget, count * longest), widths[-1]), unit)
        prompt_widths = _widths(longest_prompt, unit) if longest_prompt else (0,)
        return cls(tokens, widths, prompt_widths[-2:] if prompt_widths[-1] >= 128 else prompt_widths[-1:], platform)

    def slots(self, width: int) -> int:
        """Rows of a micro-batch at most, where the longest has `width` tokens."""
        return ceil_div(2 * self.tokens, width)


def _widths(longest: int, unit: int) -> tuple[int, ...]:
    """Widths up to the longest row's, each half of the next."""
    widths, least = [round_up(longest, unit)], max(unit, _LEAST)
    while widths[0] > least:
        widths.insert(0, max(least, round_up(ceil_div(widths[0], 2), unit)))
    return tuple(widths)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pack:
    """Where the rows of a micro-batch are."""

    row: jax.Array  # int32 [n], its number; past the last of them R
    length: jax.Array  # int32 [n], 0 past the last row
    start: jax.Array  # int32 [n], of its first token
    slot: jax.Array  # int32 [N], which of the n rows a token belongs to
    place: jax.Array  # int32 [N], its place in the row
    is_real: jax.Array  # bool [N]
    width: jax.Array  # int32 [], index of the width that the rows take

    @property
    def token_row(self) -> jax.Array:
        """The row of each token, int32 [N]; past the end of all where there is none."""
        return jnp.where(self.is_real, self.row[self.slot], jnp.iinfo(jnp.int32).max)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Waiting:
    """The rows that no micro-batch has had: the longest are taken first, the shortest to fill up."""

    order: jax.Array  # int32 [R], rows from the longest on
    before: jax.Array  # int32 [R + 1], tokens before each of them and after all
    first: jax.Array  # int32 [], the longest that waits
    end: jax.Array  # int32 [], behind the shortest that waits

    @classmethod
    def of(cls, lengths: jax.Array) -> "Waiting":
        """All rows of length [R] at least 1."""
        order = jnp.argsort(-lengths)
        return cls(order, jnp.pad(jnp.cumsum(lengths[order]), (1, 0)), jnp.int32(0), (lengths > 0).sum(dtype=jnp.int32))

    @property
    def some(self) -> jax.Array:
        """Whether there are any, bool []."""
        return self.first < self.end


def pack(waiting: Waiting, spec: PackSpec) -> tuple[Pack, Waiting]:
    """The next micro-batch, and the rows that wait then."""
    order, before, first, end = waiting.order, waiting.before, waiting.first, waiting.end
    lengths, R = jnp.diff(before), len(waiting.order)
    width = jnp.searchsorted(jnp.array(spec.widths), lengths[jnp.minimum(first, R - 1)])
    most = jnp.array([spec.slots(w) for w in spec.widths])[width]
    long = jnp.searchsorted(before, before[first] + spec.tokens, side="right") - 1
    long = jnp.clip(long, first, jnp.minimum(first + most, end))
    left = spec.tokens - (before[long] - before[first])
    short = jnp.searchsorted(before, before[end] - left)
    short = jnp.clip(short, jnp.maximum(long, end - (most - (long - first))), end)

    index = jnp.arange(spec.slots(spec.widths[0]))
    index = jnp.where(index < long - first, first + index, short + index - (long - first))
    is_row, index = index < jnp.where(index < long, long, end), jnp.minimum(index, R - 1)
    length = jnp.where(is_row, lengths[index], 0)
    start = jnp.cumsum(length) - length
    begins = jnp.zeros(spec.tokens, jnp.int32).at[jnp.where(is_row, start, spec.tokens)].add(1, mode="drop")
    slot, token = jnp.cumsum(begins) - 1, jnp.arange(spec.tokens)
    row = jnp.where(is_row, order[index], R).astype(jnp.int32)
    packed = Pack(row, length, start, slot, token - start[slot], token < length.sum(), width)
    return packed, dataclasses.replace(waiting, first=long, end=short)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def side_by_side(x: jax.Array, pack: Pack, width: int) -> jax.Array:
    """Numbers of the tokens [N] row by row, [n, width], 0 past a row's last."""
    place = jnp.arange(width)
    x = x[jnp.minimum(pack.start[:, None] + place, len(x) - 1)]
    return jnp.where(place < pack.length[:, None], x, 0)


def _side_by_side_backward(width: int, pack: Pack, cotangent: jax.Array):
    return jnp.where(pack.is_real, cotangent[pack.slot, jnp.minimum(pack.place, width - 1)], 0), None


side_by_side.defvjp(lambda x, pack, width: (side_by_side(x, pack, width), pack), _side_by_side_backward)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prompts:
    """Which prompt each row of a micro-batch comes after."""

    index: jax.Array  # int32 [n], among the U prompts
    length: jax.Array  # int32 [n], its tokens that are not the row's; 0 past the last row


def attend(q: jax.Array, k: jax.Array, v: jax.Array, shared, pack: Pack, prompts: Prompts | None, spec: PackSpec):
    """Causal attention of packed rows: q [N, H, E], k and v [N, K, E] -> [N, H, E].

    `shared`: the prompts' (keys, values), [U, S, K, E] both; None where rows come after none.
    """
    if shared is None:
        shared = tuple(jnp.zeros((1, 0, *x.shape[1:]), x.dtype) for x in (k, v))
        prompts = Prompts(jnp.zeros_like(pack.row), jnp.zeros_like(pack.row))
    return _attend(spec, pack, prompts, q, k, v, tuple(shared))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(spec: PackSpec, pack: Pack, prompts: Prompts, q, k, v, shared):
    return _switch(_forward, spec, pack, prompts, q, k, v, shared)


def _attend_forward(spec, *args):
    return _attend(spec, *args), args


def _attend_backward(spec, args, cotangent):
    # Written out: by itself the way back would scatter where this one gathers, and keep what differs by width.
    return None, None, *_switch(_backward, spec, *args, cotangent)


_attend.defvjp(_attend_forward, _attend_backward)


def _switch(function, spec: PackSpec, pack: Pack, prompts: Prompts, *args):
    """`function` compiled for the widths that this micro-batch has."""
    narrow = jnp.searchsorted(jnp.array(spec.prompt_widths), prompts.length.max())
    branches = [functools.partial(function, spec, w, s) for w in spec.widths for s in spec.prompt_widths]
    return jax.lax.switch(pack.width * len(spec.prompt_widths) + narrow, branches, pack, prompts, *args)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Rows side by side, [n, C], each after the first S tokens of its prompt."""

    pack: Pack
    prompts: Prompts
    kernel: str  # of `attention`
    slots: int  # n
    width: int  # C
    prompt_width: int  # S

    def side_by_side(self, x: jax.Array) -> jax.Array:  # [N, ..] -> [n, C, ..]
        column = jnp.arange(self.width) - self.shift[:, None]
        index = self.pack.start[: self.slots, None] + column
        x = x[jnp.clip(index, 0, len(x) - 1)]
        real = (column >= 0) & (column < self.pack.length[: self.slots, None])
        return jnp.where(real.reshape(*real.shape, *[1] * (x.ndim - 2)), x, 0)

    def end_to_end(self, x: jax.Array) -> jax.Array:  # [n, C, ..] -> [N, ..]
        slot = jnp.minimum(self.pack.slot, self.slots - 1)
        place = jnp.clip(self.pack.place + self.shift[slot], 0, self.width - 1)
        x = x[slot, place]
        return jnp.where(self.pack.is_real.reshape(-1, *[1] * (x.ndim - 1)), x, 0)

    @property
    def shift(self) -> jax.Array:
        """int32 [n], columns before a row's first: cuDNN wants the prompt in them."""
        length = self.prompts.length[: self.slots]
        return length if self.kernel == "cudnn" else jnp.zeros_like(length)

    def gather(self, x: jax.Array) -> jax.Array:  # [U, .., K, E] -> [n, S, K, E]
        return x[self.prompts.index[: self.slots], : self.prompt_width]

    def add_up(self, x: jax.Array, like: jax.Array) -> jax.Array:  # [n, S, K, E] -> [U, .., K, E]
        member = jnp.arange(len(like))[:, None] == self.prompts.index[: self.slots]
        total = jnp.einsum("un,nske->uske", member.astype(x.dtype), x, preferred_element_type=_F32)
        return jnp.pad(total.astype(like.dtype), ((0, 0), (0, like.shape[1] - self.prompt_width), (0, 0), (0, 0)))

    def attend(self, q, k, v, shared_k, shared_v) -> jax.Array:  # [n, C, ..], [n, S, K, E] -> [n, C, H, E]
        after = self.prompts.length[: self.slots]
        if self.kernel == "cudnn":
            whole = after + self.pack.length[: self.slots]
            return _fused(q, *(_lay_before(x, y, after) for x, y in ((shared_k, k), (shared_v, v))), whole)
        k, v = (jnp.concatenate(x, 1) for x in ((shared_k, k), (shared_v, v)))
        return (attention.splash if self.kernel else attention.in_blocks)(q, k, v, after)


def _layout(spec: PackSpec, width: int, prompt_width: int, pack: Pack, prompts: Prompts, q: jax.Array) -> _Layout:
    kernel = attention.kernel(spec.platform, q.dtype, q.shape[-1])
    columns = width + (prompt_width if kernel == "cudnn" else 0)
    return _Layout(pack, prompts, kernel, min(spec.slots(width), len(pack.row)), columns, prompt_width)


def _forward(spec: PackSpec, width: int, prompt_width: int, pack: Pack, prompts: Prompts, q, k, v, shared):
    layout = _layout(spec, width, prompt_width, pack, prompts, q)
    return layout.end_to_end(layout.attend(*map(layout.side_by_side, (q, k, v)), *map(layout.gather, shared)))


def _backward(spec: PackSpec, width: int, prompt_width: int, pack: Pack, prompts: Prompts, q, k, v, shared, cotangent):
    layout = _layout(spec, width, prompt_width, pack, prompts, q)
    _, back = jax.vjp(layout.attend, *map(layout.side_by_side, (q, k, v)), *map(layout.gather, shared))
    *own, shared_k, shared_v = back(layout.side_by_side(cotangent))
    return *map(layout.end_to_end, own), (layout.add_up(shared_k, shared[0]), layout.add_up(shared_v, shared[1]))


def _lay_before(prompt: jax.Array, own: jax.Array, length: jax.Array) -> jax.Array:
    """[n, S, K, E] and, laid behind its `length` [n], [n, C, K, E] -> [n, C, K, E]."""
    prompt = jnp.pad(prompt, ((0, 0), (0, own.shape[1] - prompt.shape[1]), (0, 0), (0, 0)))
    return jnp.where((jnp.arange(own.shape[1]) < length[:, None])[..., None, None], prompt, own)


def _fused(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array) -> jax.Array:
    """By cuDNN, which spares what lies past a row's length and wants no row empty."""
    lengths = jnp.maximum(lengths, 1)
    return attention.cudnn(q, k, v, is_causal=True, query_seq_lengths=lengths, key_value_seq_lengths=lengths)
