"""The draw of questions near the target difficulty."""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.jit, static_argnames="n")
def near(key: jax.Array, difficulty: jax.Array, target: float, temperature: float, n: int) -> jax.Array:
    """Draws n distinct questions, int32 [n], each from those left with P(q) in proportion to exp(-|d_q - target| / T).

    difficulty float32 [N]; infinite: never drawn while others are left. It is Gumbel-top-k on the log-weights, which
    cannot underflow as the softmax does: any temperature above 0 works.
    """
    log_weights = -jnp.abs(difficulty - target) / temperature
    return jax.lax.top_k(log_weights + jax.random.gumbel(key, difficulty.shape), n)[1].astype(jnp.int32)
