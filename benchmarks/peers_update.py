"""Seconds of our update beside a plain PyTorch GRPO step with transformers: one JSON line.

python benchmarks/peers_update.py --questions=16 --group=8 --prompt=64 --max-tokens=128 --useful=0.25

All get the same weights, rows, advantages and optimizer. PyTorch's micro-batches hold rows sorted by length, padded to
the longest of them; it computes the logits of completion tokens alone. `skips` leaves out groups whose rewards are all
equal, as ours does; `plain` does not. Calls are interleaved: each round calls every step once.
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

from benchmarks import common, peers, update
from dots_jax import learner
from dots_jax.core.errors import UserError
from dots_jax.policy import transformer


def torch_step(directory: str, skips: bool, micro_rows: int, spec: learner.UpdateSpec):
    """`step(rollouts, advantages) -> loss` of one optimizer step, which moves the model."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=spec.learning_rate, betas=spec.betas, weight_decay=spec.weight_decay
    )

    def step(rollouts, advantages: np.ndarray) -> float:
        S, T = rollouts.prompts.shape[1], rollouts.tokens.shape[2]
        prompts = np.repeat(np.asarray(rollouts.prompts), advantages.shape[1], 0)  # all S long
        tokens, behaviour = (np.asarray(x).reshape(-1, T) for x in (rollouts.tokens, rollouts.logprobs))
        lengths, a = np.asarray(rollouts.lengths).ravel(), advantages.ravel()
        rows = np.flatnonzero(a != 0) if skips else np.arange(len(a))
        rows, total, loss_sum = rows[np.argsort(lengths[rows])], lengths.sum(), 0.0
        for i in range(0, len(rows), micro_rows):
            at = rows[i : i + micro_rows]
            longest = lengths[at].max()
            ids = torch.tensor(np.concatenate([prompts[at], tokens[at, :longest]], 1)).long()
            real = torch.arange(longest)[None] < torch.tensor(lengths[at])[:, None]
            mask = torch.cat([torch.ones(len(at), S, dtype=torch.long), real.long()], 1)
            hidden = model.model(ids, attention_mask=mask).last_hidden_state[:, S - 1 : -1]
            logits = model.lm_head(hidden[real])
            logp = torch.log_softmax(logits, -1).gather(1, ids[:, S:][real][:, None])[:, 0]
            ratio = torch.exp(logp - torch.tensor(behaviour[at, :longest])[real])
            advantage = torch.tensor(a[at])[:, None].expand(-1, longest)[real]
            clipped = torch.clamp(ratio, 1 - spec.clip[0], 1 + spec.clip[1]) * advantage
            loss = -torch.minimum(ratio * advantage, clipped).sum() / total
            loss.backward()
            loss_sum += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return loss_sum

    return step


def main(argv=None) -> dict:
    """Measures, prints and returns the record."""
    p = update.parser(__doc__.splitlines()[0])
    p.add_argument("--policy", metavar="DIR", help="a real policy in Hugging Face layout")
    p.add_argument("--micro-rows", type=int, default=16, help="rows of PyTorch's micro-batches")
    p.set_defaults(
        questions=16, prompt=64, max_tokens=128, lengths="lognormal", mean=55, useful=0.25, minibatches=1, remat="none",
        micro_tokens=512, logits_chunk=512,
    )  # fmt: skip
    args = p.parse_args(argv)
    if not all(map(importlib.util.find_spec, ("torch", "transformers"))):
        raise UserError("PyTorch is not installed: pip install torch transformers")
    with tempfile.TemporaryDirectory() as directory:
        directory, config, params = peers.policy_of(args, directory)
        spec = update.hyper_of(args)
        theirs = {name: torch_step(directory, name == "skips", args.micro_rows, spec) for name in ("skips", "plain")}
    mesh = common.one_device()
    state = learner.init_state(jax.device_put(params, transformer.shardings(config, mesh)), config, spec, mesh)
    seconds, tokens, flops, losses = {"dots_jax": []} | {name: [] for name in theirs}, [], [], {}

    def ours(given):
        nonlocal state
        state, _, info = learner.update(state, None, *given, config, spec, mesh)
        return jax.block_until_ready((state, info))[1]

    load = os.getloadavg()[0]
    for i in range(args.repeats + 1):
        given = update.batch(i, args, config, mesh)
        rollouts, advantages = given[0].rollouts, np.asarray(learner.advantages(given[0].rewards))
        (taken, _, info), *_ = common.timed(lambda _, given=given: given, ours, 1) if i else [(0, None, ours(given))]
        found = {"dots_jax": (taken, float(info["loss"]))}
        for name, step in theirs.items():
            taken, loss = common.first_call(lambda step=step, r=rollouts, a=advantages: step(r, a))
            found[name] = taken, loss
        losses = losses or {name: round(loss, 6) for name, (_, loss) in found.items()}  # before anything has moved
        if i:
            for name, (taken, _) in found.items():
                seconds[name].append(taken)
            n = np.asarray(rollouts.lengths)[(advantages != 0).any(1)]
            tokens.append(int(n.sum()) + args.prompt * len(n))
            flops.append(update.useful_flops(config, np.full(len(n), args.prompt), n))
    peak = args.peak * 1e12 if args.peak else common.measure_matmul(jnp.float32)
    speed = {name: [1 / s for s in x] for name, x in seconds.items()}
    record = peers.compared("peers_update", args, config, load, speed) | {
        **{name: getattr(args, name) for name in ("useful", "remat", "micro_tokens")},
        "losses": losses,
        "tokens": common.spread(tokens),  # each prompt counted once
        "seconds": {name: common.spread(x) for name, x in seconds.items()},
        "peak_share": common.spread(f / s / peak for f, s in zip(flops, seconds["dots_jax"], strict=True)),
    }
    return common.emit(record, args.output)


if __name__ == "__main__":
    common.finish(main)
