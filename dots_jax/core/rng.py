"""Random streams: every draw is `fold_in(key, purpose, step)`, so nothing depends on call order."""

import enum

import jax


class Purpose(enum.IntEnum):
    """What a random stream is for. Append only: the numbers fix the draws of old runs."""

    INIT = 0
    SELECTION = 1
    ROLLOUT = 2
    UPDATE = 3
    EVALUATION = 4
    REFERENCE = 6
    REPLAY = 7
    LOG = 8


def stream(key: jax.Array, purpose: Purpose, step) -> jax.Array:
    """The key for `purpose` at `step`."""
    return jax.random.fold_in(jax.random.fold_in(key, int(purpose)), step)
