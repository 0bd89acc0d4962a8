"""The draw of questions near the target difficulty, and of references."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(jax.jit, static_argnames="n")
def near(key: jax.Array, difficulty: jax.Array, target: float, temperature: float, n: int) -> jax.Array:
    """Draws n distinct questions, int32 [n], each from those left with P(q) in proportion to exp(-|d_q - target| / T).

    difficulty float32 [N]; infinite: never drawn while others are left. It is Gumbel-top-k on the log-weights, which
    cannot underflow as the softmax does: any temperature above 0 works.
    """
    log_weights = -jnp.abs(difficulty - target) / temperature
    return jax.lax.top_k(log_weights + jax.random.gumbel(key, difficulty.shape), n)[1].astype(jnp.int32)


def near_reusing(
    key: jax.Array, distance: np.ndarray, temperature: float, n: int, references: np.ndarray, count: int
) -> np.ndarray:
    """As `near` by the distance [N] from the target; the first `count` of them are drawn of `references`, int32 [M]."""
    reused = np.zeros(0, np.int32)
    if count:
        among = np.full_like(distance, np.inf)
        among[references] = distance[references]
        reused = np.asarray(near(key, among, 0.0, temperature, count))
    rest = distance.copy()
    rest[reused] = np.inf
    return np.concatenate([reused, near(jax.random.fold_in(key, 1), rest, 0.0, temperature, n - count)])


def nearest(difficulty: np.ndarray, target: float, n: int) -> np.ndarray:
    """Places of the n numbers nearest to the target, the nearest first, int32 [n]; nothing is drawn."""
    return np.argsort(np.abs(difficulty - target), kind="stable")[:n].astype(np.int32)


def references(key: jax.Array, num_questions: int, count: int) -> np.ndarray:
    """So many questions, uniformly without replacement, int32 [count]."""
    return np.asarray(jax.random.permutation(jax.random.fold_in(key, 0), num_questions)[:count], np.int32)
