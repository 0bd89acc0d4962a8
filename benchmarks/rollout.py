"""How fast completions are sampled, and how near that is to the device's memory bandwidth: one JSON line.

python benchmarks/rollout.py --shape=1.5b --dtype=bfloat16 --questions=64 --prompt=256 --max-tokens=1024
"""

import statistics
import sys
from argparse import BooleanOptionalAction
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from dots_jax import rollout
from dots_jax.core import sharding
from dots_jax.core.arithmetic import ceil_div
from dots_jax.policy import transformer
from dots_jax.rollout import layout


def decode_steps(lengths: np.ndarray, spec: layout.SamplerSpec) -> tuple[int, int]:
    """Decode steps that one device takes for completions of these lengths [P, G], and rows computed in them.

    As the sampler does: a slot is handed on at the end of a chunk, a chunk ends early where no row is left in it, and
    when no row waits fewer slots are computed.
    """
    waiting, steps, rows = deque(lengths.ravel().tolist()), 0, 0
    computed = spec.live_bound(min(spec.slots, len(waiting)))
    left = [0] * spec.size_for(computed)
    while waiting or any(left):
        left = [x or (waiting.popleft() if waiting else 0) for x in left]
        if not waiting:
            computed = min(computed, spec.live_bound(sum(x > 0 for x in left)))
            left = sorted(left, reverse=True)[:computed]
        took = min(spec.chunk, max(left))
        left = [max(x - took, 0) for x in left]
        steps, rows = steps + took, rows + took * computed
    return steps, rows


def decode_bytes(config: transformer.ModelConfig, prompt_lengths, lengths, steps: float, itemsize: int) -> int:
    """Bytes that decoding must move at least, for prompt lengths [P] and completion lengths [P, G].

    In each of `steps` decode steps the weights of all layers, the last norm and the output matrix, once (of the input
    embedding only the rows of the drawn tokens, not counted). In each step of a question with a live row the keys
    and values of its prompt, once for all its rows. For a row's j-th decode step, j = 1 .. length, those of its
    j - 1 tokens so far (the newest written, the others read). A token's keys and values are 2 L K E numbers. Nothing
    for activations, logits, prefill, dead rows, padding, or cache slots that are not filled yet.
    """
    lengths = np.asarray(lengths, np.int64)
    weights = common.count(config, embeddings=False) + config.vocab_size * config.width
    kv = 2 * config.num_layers * config.num_kv_heads * config.head_width
    prompts = (np.asarray(prompt_lengths, np.int64) * lengths.max(1)).sum()
    own = (lengths * (lengths - 1) // 2).sum()
    return int(steps * weights + kv * (prompts + own)) * itemsize


def limit_seconds(
    config: transformer.ModelConfig, prompt_lengths, lengths, rows: int, itemsize: int, bandwidth: float, peak: float
) -> float:
    """Seconds of ideal decoding, for prompt lengths [P] and completion lengths [P, G].

    Every step has `rows` live rows, so that there are as few as can be, and takes what its bytes (`decode_bytes`) take
    at `bandwidth` bytes/s or its FLOPs at `peak` FLOP/s, whichever is longer. FLOPs: 2 per token and parameter of the
    layers and the output matrix, 4 H E per token, layer and key that it sees.
    """
    s, n = np.asarray(prompt_lengths, np.int64)[:, None], np.asarray(lengths, np.int64)
    tokens, keys = int(n.sum()), int((n * s + n * (n - 1) // 2).sum())
    flops = 2 * tokens * (common.count(config, embeddings=False) + config.vocab_size * config.width)
    flops += 4 * config.num_layers * config.num_heads * config.head_width * keys
    moved = decode_bytes(config, prompt_lengths, lengths, tokens / rows, itemsize)
    return max(moved / bandwidth, flops / peak)


def main(argv=None) -> dict:
    """Measures, prints and returns the record."""
    p = common.parser(__doc__.splitlines()[0])
    p.add_argument("--lengths", choices=("full", "geometric", "lognormal"), default="full")
    p.add_argument("--slots", type=int, default=0, help="rows decoded at a time; 0: what suits the device")
    p.add_argument("--chunk", type=int, default=32, help="decode steps between looks at finished rows")
    p.add_argument("--bandwidth", type=float, help="GB/s of a device's memory; measured where not given")
    p.add_argument("--peak", type=float, help="TFLOP/s of a device's matrix products; measured where not given")
    p.add_argument("--prefill", action=BooleanOptionalAction, default=True, help="time prefill alone")
    args = p.parse_args(argv)
    config, mesh, record = common.setup(args)
    P, G, S, T = args.questions, args.group, args.prompt, args.max_tokens
    rng = np.random.default_rng(args.seed)
    key = jax.random.key(args.seed)

    stop_ids, more = (config.num_tokens,), {}  # an id that is never drawn, so that every row is T long
    if args.lengths == "geometric":
        # Random weights give nearly uniform distributions: a share of 1 / mean of the ids ends a row as often.
        stops = max(round(config.num_tokens / args.mean), 1)
        stop_ids = tuple(int(i) for i in rng.choice(config.num_tokens, min(stops, config.num_tokens), replace=False))
    if args.lengths == "lognormal":
        more["limits"] = common.lognormal(rng, (P, G), args.mean, args.sigma, T)
    prompts = rng.integers(0, config.num_tokens, (P, S), np.int32)
    prompt_lengths = np.full(P, S, np.int32)
    params = jax.block_until_ready(transformer.init(config, key, jnp.dtype(args.dtype), mesh))

    shards = sharding.num_row_shards(mesh)
    per_shard = ceil_div(P, shards)
    rows = ceil_div(args.slots, shards) or min(layout.default_slots(sharding.platform(mesh)), per_shard * G)

    def run(key, max_tokens=T, **more):
        return rollout.sample(
            params, config, prompts, prompt_lengths, key, G, max_tokens, args.temperature, stop_ids,
            chunk=args.chunk, slots=rows * shards, capacity=(S, T), mesh=mesh, **more,
        )  # fmt: skip

    keys = jax.random.split(key, 2)
    compile_seconds, _ = common.first_call(lambda: run(keys[0], **more))

    def prepare(i):
        return jax.random.fold_in(keys[1], i)

    results = common.timed(prepare, lambda key: run(key, **more), args.repeats)
    seconds, lengths = [s for s, *_ in results], [np.asarray(r.lengths) for *_, r in results]
    tokens = [int(x.sum()) for x in lengths]
    memory = common.peak_memory(mesh)
    prefill = []
    if args.prefill:  # for the share of decoding
        common.first_call(lambda: run(keys[0], 1))
        prefill = [s for s, *_ in common.timed(prepare, lambda key: run(key, 1), args.repeats)]

    # Every shard of the rows reads its own copy of the weights (split over `tensor`) in its own decode loop.
    spec = layout.SamplerSpec(
        config, mesh, sharding.platform(mesh), jnp.dtype(args.dtype), rows, S, T, min(args.chunk, T)
    )
    counts = [[decode_steps(x[i : i + per_shard], spec) for i in range(0, P, per_shard)] for x in lengths]
    steps, computed = ([[c[i] for c in x] for x in counts] for i in (0, 1))
    itemsize = jnp.dtype(args.dtype).itemsize
    needed = [decode_bytes(config, prompt_lengths, x, sum(s), itemsize) for x, s in zip(lengths, steps, strict=True)]
    bandwidth = args.bandwidth * 1e9 if args.bandwidth else common.measure_bandwidth()
    peak = args.peak * 1e12 if args.peak else common.measure_matmul(jnp.dtype(args.dtype))
    least = [b / (bandwidth * mesh.size) for b in needed]  # seconds
    alive = [x.sum() / sum(n) for x, n in zip(lengths, computed, strict=True)]
    whole = (itemsize, bandwidth * mesh.size, peak * mesh.size)
    limit = [limit_seconds(config, prompt_lengths, x, rows, *whole) for x in lengths]

    apart = {"prefill_seconds": None, "step_milliseconds": None, "bandwidth_share_decode": None}
    if prefill:
        decode = [max(s - np.median(prefill), 1e-9) for s in seconds]
        apart = {
            "prefill_seconds": common.spread(prefill),
            "step_milliseconds": common.spread(1e3 * d / max(*s, 1) for d, s in zip(decode, steps, strict=True)),
            "bandwidth_share_decode": common.spread(x / d for x, d in zip(least, decode, strict=True)),
        }
    record = {"benchmark": "rollout"} | record | {
        "slots": rows,
        "chunk": args.chunk,
        "temperature": args.temperature,
        "repeats": args.repeats,
        "compile_seconds": round(compile_seconds, 2),
        "seconds": common.spread(seconds),
        "generated_tokens": common.spread(tokens),
        "mean_length": round(sum(tokens) / (P * G * len(tokens)), 2),
        "tokens_per_second": common.spread(t / s for t, s in zip(tokens, seconds, strict=True)),
        "decode_steps": common.spread(max(s) for s in steps),
        "bandwidth_gb_s": round(bandwidth / 1e9, 2),
        "bandwidth_source": "flag" if args.bandwidth else "measured",
        "bandwidth_share": common.spread(x / s for x, s in zip(least, seconds, strict=True)),
        **apart,
        "alive_share": common.spread(alive),
        "peak_tflops": round(peak / 1e12, 4),
        "peak_source": "flag" if args.peak else "measured",
        "limit_seconds": common.spread(limit),
        "limit_share": common.spread(x / s for x, s in zip(limit, seconds, strict=True)),
        "peak_memory_bytes": memory,
        **(common.kernels(lambda: run(keys[1], **more), statistics.median(seconds) / 3, 1.0) if args.kernels else {}),
    }  # fmt: skip
    return common.emit(record, args.output)


if __name__ == "__main__":
    common.finish(main)
