"""Attention over packed rows and its gradients, as the update has it on a GPU, against float32 in blocks."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from benchmarks.decode_attention import TOLERANCE, apart
from dots_jax.policy import packed


def check(small: bool = False) -> dict:
    """Errors as shares of the norm, rows behind shared prompts; `ok` where all are small."""
    tokens, width, prompt, groups, (H, K, E) = (
        (64, 32, 16, 3, (4, 2, 8)) if small else (1024, 512, 128, 6, (12, 2, 128))
    )
    rng = np.random.default_rng(0)
    lengths = jnp.asarray(common.lognormal(rng, 4 * groups, width / 3, 0.8, width))
    prompt_lengths = jnp.asarray(rng.integers(0, prompt + 1, groups, np.int32))
    sizes = (tokens, H, E), (tokens, K, E), (tokens, K, E), (groups, prompt, K, E), (groups, prompt, K, E)
    given = [rng.standard_normal(size, np.float32).astype(jnp.bfloat16) for size in (*sizes, sizes[0])]

    def run(platform: str, q, k, v, shared_k, shared_v, weight):
        spec = packed.PackSpec(tokens, (width,), (prompt,), platform)
        pack, _ = packed.pack(packed.Waiting.of(lengths), spec)
        index = jnp.minimum(pack.row // 4, groups - 1)
        prompts = packed.Prompts(index, prompt_lengths[index])
        out, back = jax.vjp(
            lambda q, k, v, *s: packed.attend(q, k, v, s, pack, prompts, spec), q, k, v, shared_k, shared_v
        )
        names = "out", "dq", "dk", "dv", "d_prompt_k", "d_prompt_v"
        return dict(zip(names, (out, *back(jnp.where(pack.is_real[:, None, None], weight, 0))), strict=True))

    both = jax.jit(lambda *x: (run("gpu", *x), run("cpu", *(y.astype(jnp.float32) for y in x))))
    with jax.default_matmul_precision("highest"):
        got, want = jax.device_get(both(*given))
    error = {name: apart(got[name], want[name]) for name in want}
    return {"tokens": tokens, **error, "ok": all(x < TOLERANCE for x in error.values())}
