"""How fast a GRPO update trains, and how near that is to the device's matrix products: one JSON line.

python benchmarks/update.py --shape=1.5b --dtype=bfloat16 --questions=64 --prompt=256 --max-tokens=1024
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from dots_jax import learner
from dots_jax.core import sharding
from dots_jax.core.errors import UserError
from dots_jax.learner import losses
from dots_jax.policy import transformer
from dots_jax.rollout import Rollouts


def useful_flops(config: transformer.ModelConfig, prompt_lengths, lengths) -> int:
    """FLOPs that training on these groups needs, for prompt lengths [P] and completion lengths [P, G].

    A prompt counts once for its group. 6 per token and parameter outside the embeddings; attention, where a token sees
    all before it and itself: 4 H E for scores and values of each key, three times that with the backward pass; the
    output matrix, 6 D V, at completion tokens alone. Nothing for padding, recomputation, rows without a gradient,
    softmax, entropy and the optimizer.
    """
    s, n = np.asarray(prompt_lengths, np.int64), np.asarray(lengths, np.int64)
    keys = (s * (s + 1) // 2).sum() + (n * s[:, None] + n * (n + 1) // 2).sum()
    body = 6 * common.count(config, embeddings=False) * (s.sum() + n.sum())
    attention = 12 * config.num_layers * config.num_heads * config.head_width * keys
    return int(body + attention + 6 * config.width * config.vocab_size * n.sum())


def synthetic(rng: np.random.Generator, args, config: transformer.ModelConfig, mesh) -> tuple[Rollouts, jax.Array]:
    """Random rollouts and rewards on the devices; in a share `useful` of the groups half the rewards are 1."""
    P, G, S, T = args.questions, args.group, args.prompt, args.max_tokens
    lengths = np.full((P, G), T, np.int32)
    if args.lengths == "lognormal":
        lengths = common.lognormal(rng, (P, G), args.mean, args.sigma, T)
    real = np.arange(T) < lengths[..., None]
    useful = rng.permutation(P) < round(args.useful * P)
    rollouts = Rollouts(
        rng.integers(0, config.num_tokens, (P, S), np.int32),
        np.full(P, S, np.int32),
        np.where(real, rng.integers(0, config.num_tokens, (P, G, T), np.int32), 0),
        lengths,
        np.where(real, -np.log(config.num_tokens), 0).astype(np.float32),  # about what random weights give
        lengths < T,
    )
    rewards = useful[:, None] & (rng.permuted(np.tile(np.arange(G), (P, 1)), axis=1) < G // 2)
    return jax.device_put((rollouts, rewards.astype(np.float32)), sharding.rows(mesh))


def parser(description: str):
    """The flags of an update."""
    p = common.parser(description)
    p.add_argument("--lengths", choices=("full", "lognormal"), default="full")
    p.add_argument("--minibatches", type=int, default=2, help="optimizer steps per update")
    p.add_argument(
        "--micro-tokens", type=int, default=8192, help="tokens per forward and backward pass, on each device"
    )
    p.add_argument("--logits-chunk", type=int, default=2048, help="of them whose logits exist at once")
    p.add_argument("--remat", choices=("none", "named", "full"), default="named", help="recomputed when going back")
    p.add_argument("--rescore-fresh", action="store_true", help="as a run in 16 bits does by default")
    p.add_argument("--useful", type=float, default=1.0, help="share of groups whose rewards differ")
    p.add_argument("--peak", type=float, help="TFLOP/s of a device's matrix products; measured where not given")
    return p


def parse(argv=None):
    """The flags of this script."""
    return parser(__doc__.splitlines()[0]).parse_args(argv)


def hyper_of(args) -> learner.UpdateSpec:
    """The update that the flags describe."""
    return learner.UpdateSpec(
        minibatches=args.minibatches,
        micro_tokens=args.micro_tokens,
        logits_chunk=args.logits_chunk,
        clip=(0.2, 0.2),
        loss=losses.decoupled,
        ratio_cap=2.0,
        advantage_std=True,
        aggregation="token",
        kl_coef=0.0,
        learning_rate=1e-6,
        warmup=0,
        betas=(0.9, 0.999),
        weight_decay=0.01,
        max_grad_norm=1.0,
        remat=args.remat,
        rescore_fresh=args.rescore_fresh,
        temperature=args.temperature,
    )


def batch(i: int, args, config: transformer.ModelConfig, mesh) -> tuple:
    """What `learner.update` takes between buffer and config, random by `i`."""
    rollouts, rewards = synthetic(np.random.default_rng((args.seed, i)), args, config, mesh)
    key = jax.random.fold_in(jax.random.key(args.seed), i)
    groups = learner.Groups.fresh(rollouts, rewards, np.arange(args.questions), 1, mesh)
    return groups, jnp.int32(args.questions), key


def main(argv=None) -> dict:
    """Measures, prints and returns the record."""
    args = parse(argv)
    config, mesh, record = common.setup(args)
    P, G = args.questions, args.group
    for name in ("minibatches", "micro_tokens", "logits_chunk"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    if P % args.minibatches:
        raise UserError("--questions must divide by --minibatches")
    if G < 2 or not 0 < args.useful <= 1 or round(args.useful * P) == 0:
        raise UserError("--group must be at least 2, and --useful leave at least one group")

    hyper = hyper_of(args)
    params = transformer.init(config, jax.random.key(args.seed), jnp.dtype(args.dtype), mesh)
    state = jax.block_until_ready(learner.init_state(params, config, hyper, mesh))
    del params

    def prepare(i):
        return batch(i, args, config, mesh)

    def run(given):
        nonlocal state  # donated, so threaded through
        state, _, metrics = learner.update(state, None, *given, config, hyper, mesh)
        jax.block_until_ready(state)
        return metrics

    warm = prepare(2**31 - 1)
    compile_seconds, _ = common.first_call(lambda: run(warm))
    results = common.timed(prepare, run, args.repeats)
    memory = common.peak_memory(mesh)
    peak = args.peak * 1e12 if args.peak else common.measure_matmul(jnp.dtype(args.dtype))

    seconds, rows, tokens, flops, metrics = [s for s, *_ in results], [], [], [], []
    for _, (groups, *_), out in results:
        rollouts, rewards = groups.rollouts, np.asarray(groups.rewards)
        lengths = np.asarray(rollouts.lengths)
        trained = (rewards != rewards[:, :1]).any(1)  # groups with a gradient
        completion, prompt = lengths[trained], np.asarray(rollouts.prompt_lengths)[trained]
        rows.append(completion.size)
        tokens.append(int(prompt.sum() + completion.sum()))
        flops.append(useful_flops(config, prompt, completion))
        metrics.append({k: float(v) for k, v in out.items()})
    if not all(np.isfinite(m[k]) for m in metrics for k in ("loss", "grad_norm")):
        raise RuntimeError("the update's loss or gradient is not finite: these timings mean nothing")

    record = {"benchmark": "update"} | record | {
        "minibatches": args.minibatches,
        "micro_tokens": args.micro_tokens,
        "logits_chunk": args.logits_chunk,
        "remat": args.remat,
        "rescore_fresh": args.rescore_fresh,
        "useful": args.useful,
        "repeats": args.repeats,
        "compile_seconds": round(compile_seconds, 2),
        "seconds": common.spread(seconds),
        "trained_rows": common.spread(rows),
        "trained_tokens": common.spread(tokens),
        "tokens_per_second": common.spread(t / s for t, s in zip(tokens, seconds, strict=True)),
        "padding": common.spread(m["padding"] for m in metrics),
        "skipped": common.spread(m["skipped"] for m in metrics),
        "useful_tflops": common.spread(f / s / 1e12 for f, s in zip(flops, seconds, strict=True)),
        "peak_tflops": round(peak / 1e12, 4),
        "peak_source": "flag" if args.peak else "measured",
        "peak_share": common.spread(f / s / peak / mesh.size for f, s in zip(flops, seconds, strict=True)),
        "peak_memory_bytes": memory,
        **(common.kernels(lambda: run(warm)) if args.kernels else {}),
    }  # fmt: skip
    return common.emit(record, args.output)


if __name__ == "__main__":
    common.finish(main)
