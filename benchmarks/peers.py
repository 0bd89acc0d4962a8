"""Useful tokens per second of our sampler beside Hugging Face's and Tunix's: one JSON line.

python benchmarks/peers.py --questions=16 --group=8 --prompt=64 --max-tokens=128

All get the same weights, prompts and stop ids, and draw at temperature 1 from the whole distribution. Calls are
interleaved: each round calls every sampler once. Useful are tokens up to the stop id, that included. Wants torch and
transformers, google-tunix, or both; what is missing is left out.
"""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from dots_jax import policy, rollout
from dots_jax.core.errors import UserError
from dots_jax.policy import tokenizer as tok
from dots_jax.policy import transformer

SHAPE = transformer.ModelConfig(4096, 384, 6, 6, 2, 1024, 1e4, 1e-6, True, 4096, 4096)  # 11M parameters


def ours(params, config, prompts, lengths, stop_ids, args):
    """`call(seed) -> lengths [P, G]` of dots_jax."""

    def call(seed: int):
        out = rollout.sample(
            params, config, prompts, lengths, jax.random.key(seed), args.group, args.max_tokens, 1.0, stop_ids,
            chunk=args.chunk, slots=args.slots,
        )  # fmt: skip
        return np.asarray(out.lengths)

    return call


def useful(tokens: np.ndarray, stop_ids) -> np.ndarray:
    """Lengths [R] of completions [R, T], the first stop id counted."""
    stops = np.isin(tokens, stop_ids)
    return np.where(stops.any(1), stops.argmax(1) + 1, tokens.shape[1])


def hugging_face(directory: str, prompts, lengths, stop_ids, args):
    """`call(seed) -> lengths [P, G]` of `generate`, prompts padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    S = prompts.shape[1]
    at = np.arange(S) - (S - lengths[:, None])
    ids = np.where(at >= 0, np.take_along_axis(prompts, at.clip(0), 1), 0)
    ids, mask = torch.tensor(ids).long(), torch.tensor(at >= 0).long()

    def call(seed: int):
        torch.manual_seed(seed)
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                num_return_sequences=args.group, max_new_tokens=args.max_tokens, eos_token_id=list(stop_ids),
                pad_token_id=stop_ids[0],
            )  # fmt: skip
        return useful(out[:, S:].numpy(), stop_ids).reshape(len(prompts), -1)

    return call


class Numbers:
    """What Tunix takes for a tokenizer: texts are token ids."""

    def encode(self, text: str, **_) -> list[int]:
        return [int(x) for x in text.split()]

    def decode(self, ids, **_) -> str:
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        return 0  # none is put before a prompt

    def eos_id(self) -> int:
        return -2

    def pad_id(self) -> int:
        return -3


def tunix(directory: str, config: transformer.ModelConfig, prompts, lengths, stop_ids, args):
    """`call(seed) -> lengths [P, G]` of Tunix's sampler, each prompt given G times."""
    from tunix.generate import sampler
    from tunix.models.qwen2 import model, params

    shape = model.ModelConfig(
        config.num_layers, config.vocab_size, config.width, config.mlp_width, config.num_heads, config.head_width,
        config.num_kv_heads, config.rope_theta, config.norm_eps, config.tie_embeddings,
    )  # fmt: skip
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    size = prompts.shape[1]
    cache = sampler.CacheConfig(size + args.max_tokens, config.num_layers, config.num_kv_heads, config.head_width)
    texts = [" ".join(map(str, p[:n])) for p, n in zip(prompts, lengths, strict=True) for _ in range(args.group)]
    with jax.set_mesh(mesh):
        made = params.create_model_from_safe_tensors(directory, shape, mesh, dtype=jnp.float32)
        sample = sampler.Sampler(made, Numbers(), cache)

    def call(seed: int):
        with jax.set_mesh(mesh):
            out = sample(texts, args.max_tokens, size, temperature=1.0, top_p=1.0, seed=seed, eos_tokens=list(stop_ids))
        rows = [np.asarray(x)[: args.max_tokens] for x in out.tokens]
        return np.array([useful(x[None], stop_ids)[0] if len(x) else 0 for x in rows]).reshape(len(prompts), -1)

    return call


def policy_of(args, directory: str) -> tuple[str, transformer.ModelConfig, dict]:
    """Where the policy lies, its shape and parameters: `--policy`, or random ones, which are saved in `directory`."""
    if args.policy:
        return args.policy, *policy.load(args.policy, dtype=jnp.float32)
    params = transformer.init(SHAPE, jax.random.key(args.seed))
    policy.save(directory, SHAPE, params)
    return directory, SHAPE, params


def compared(benchmark: str, args, config: transformer.ModelConfig, load: float, speed: dict[str, list]) -> dict:
    """The fields of a comparison's record: what ran, and `ratio`, our speed to each peer's round by round."""
    return {
        "benchmark": benchmark,
        "device": jax.devices()[0].device_kind,
        "load": round(load, 2),
        "model": args.policy and os.path.basename(os.path.normpath(args.policy)) or "11M",
        "parameters": common.count(config),
        **{name: getattr(args, name) for name in ("questions", "group", "prompt", "max_tokens")},
        "ratio": {
            name: common.spread(a / b for a, b in zip(speed["dots_jax"], x, strict=True))
            for name, x in speed.items()
            if name != "dots_jax"
        },
    }


def main(argv=None) -> dict:
    """Measures, prints and returns the record."""
    p = common.parser(__doc__.splitlines()[0])
    p.add_argument("--policy", metavar="DIR", help="a real policy in Hugging Face layout; its own stop ids")
    p.add_argument("--pool", metavar="FILE", help="parquet with a column `problem`, whose first rows are the prompts")
    p.add_argument("--peers", default="hugging_face,tunix", help="with which to compare")
    p.add_argument("--chunk", type=int, default=16, help="decode steps of ours between two looks at the rows")
    p.add_argument("--slots", type=int, default=0, help="rows of ours decoded at a time; 0: what suits the device")
    p.set_defaults(questions=16, prompt=64, max_tokens=128, lengths="geometric", sigma=None)
    args = p.parse_args(argv)
    args.mean = args.mean or args.max_tokens / 2
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as directory:
        directory, config, params = policy_of(args, directory)
        if args.policy:
            tokenizer = tok.load(directory)
            stop_ids = tok.stop_ids(directory, tokenizer)
        else:
            # Random weights give nearly uniform distributions: a share of 1 / mean of the ids ends a row as often.
            stop_ids = rng.choice(config.vocab_size, round(config.vocab_size / args.mean), replace=False)
            stop_ids = tuple(int(i) for i in stop_ids)
        if args.pool:
            import pyarrow.parquet as pq

            texts = pq.read_table(args.pool, columns=["problem"])["problem"].to_pylist()[: args.questions]
            prompts, lengths = tok.encode(tokenizer, texts, config.max_positions - args.max_tokens, "")
        else:
            prompts = rng.integers(0, config.num_tokens, (args.questions, args.prompt), np.int32)
            lengths = np.full(args.questions, args.prompt, np.int32)
        calls = {"dots_jax": ours(params, config, prompts, lengths, stop_ids, args)}
        if "hugging_face" in args.peers and importlib.util.find_spec("torch"):
            calls["hugging_face"] = hugging_face(directory, prompts, lengths, stop_ids, args)
        if "tunix" in args.peers and importlib.util.find_spec("tunix"):
            calls["tunix"] = tunix(directory, config, prompts, lengths, stop_ids, args)
        if len(calls) == 1:
            raise UserError("no peer is installed: pip install torch transformers, or google-tunix")
        load, found = os.getloadavg()[0], {name: [] for name in calls}
        for i in range(args.repeats + 1):
            for name, call in calls.items():
                (seconds, _, tokens), *_ = common.timed(lambda _, i=i: args.seed + i, call, 1)
                if i:
                    found[name].append((seconds, int(tokens.sum())))
    speed = {name: [n / s for s, n in x] for name, x in found.items()}
    record = compared("peers", args, config, load, speed) | {
        "prompt": int(lengths.mean()),
        "mean_length": {name: round(np.mean(x, 0)[1] / args.questions / args.group, 1) for name, x in found.items()},
        "tokens_per_second": {name: common.spread(x) for name, x in speed.items()},
    }
    return common.emit(record, args.output)


if __name__ == "__main__":
    common.finish(main)
