"""Computes only on real tokens: rows sorted by length, in micro-batches of few padded lengths."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dots_jax.core import sharding
from dots_jax.core.arithmetic import ceil_div, round_up
from dots_jax.learner.types import Rows, UpdateSpec


def buckets(length: int, count: int, unit: int = 1) -> tuple[int, ...]:
    """The padded lengths that a micro-batch can have: at most `count` steps up to `length`, in units, none below 2."""
    steps = (ceil_div(length * (i + 1), count) for i in range(count))
    return tuple(sorted({max(2, round_up(step, unit)) for step in steps}))


def scan(
    rows: Rows,
    active: jax.Array,
    spec: UpdateSpec,
    mesh: jax.sharding.Mesh,
    carry: Any,
    compute: Callable,
    idle: Callable,
):
    """Goes over the rows in micro-batches of `micro_rows`, sorted by length; those not `active`, bool [R], come last.

    compute (padded length, carry, rows) -> (carry, out) is for a micro-batch with an active row; it is compiled for
    each of `buckets` and run with the shortest that suffices. idle (carry, rows) -> (carry, out) is for any other.

    Returns the last carry, and out of all rows in the order of `rows`.
    """
    total = rows.prompt_lengths + rows.lengths
    order = jnp.argsort(jnp.where(active, -total, 0))
    micro = jax.tree.map(lambda x: x[order].reshape(-1, spec.micro_rows, *x.shape[1:]), rows)
    longest = jnp.where(active, total, 0)[order].reshape(-1, spec.micro_rows).max(1)
    sizes = buckets(rows.tokens.shape[1], spec.length_buckets, sharding.length_unit(sharding.platform(mesh)))
    branch = jnp.where(longest == 0, 0, 1 + jnp.searchsorted(jnp.array(sizes), longest))
    branches = [idle] + [functools.partial(compute, size) for size in sizes]

    def step(carry: Any, x: tuple[jax.Array, Rows]):
        index, rows = x
        rows = jax.tree.map(lambda x: sharding.constrain(x, sharding.BATCH), rows)
        return jax.lax.switch(index, branches, carry, rows)

    carry, out = jax.lax.scan(step, carry, (branch, micro))
    return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[jnp.argsort(order)], out)
