"""The sections of `benchmarks/gpu.py`, which runs each in a process of its own, and the checks that they are made of.

A check returns what it measured, and `ok` where there is a right and a wrong.
"""

import collections
import contextlib
import dataclasses
import functools
import gzip
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import common, decode_attention, packed_attention, rollout, update
from dots_jax import learner, policy
from dots_jax.policy import attention, scoring, transformer
from dots_jax.rollout import draw, sampler

ROOT = Path(__file__).resolve().parent.parent
LOGPROB_TOLERANCE = 0.03  # mean difference of log-probs, two layers in bfloat16
BATCH = ["--shape=1.5b", "--dtype=bfloat16", "--mesh=1,1,1", "--questions=64", "--group=8", "--prompt=256"]
BATCH += ["--max-tokens=1024"]
SMALL = ["--shape=least", "--dtype=float32", "--mesh=1,1,1", "--questions=4", "--group=4", "--prompt=8"]
SMALL += ["--max-tokens=12"]
RAGGED = ["--lengths=lognormal", "--mean=384"]


# ---- Device --------------------------------------------------------------------------------------------------------


def device(lines, small: bool) -> None:
    """What the machine is, and its limits: copies and matrix products."""

    def limits():
        copied = common.measure_bandwidth(2**16 if small else None)
        bf16, f32 = (common.measure_matmul(dtype, 64 if small else None) for dtype in ("bfloat16", "float32"))
        return {
            "copy_gb_s": round(copied / 1e9, 1),
            "bf16_tflops": float(f"{bf16 / 1e12:.4g}"),
            "float32_tflops": float(f"{f32 / 1e12:.4g}"),  # at JAX's default precision: TF32 on a GPU
        }

    def versions():
        first = jax.devices()[0]
        return {
            "python": platform.python_version(),
            "jaxlib": jax.lib.__version__,
            "numpy": np.__version__,
            "optax": optax.__version__,
            "platform": " ".join(first.client.platform_version.split()),
            "memory_bytes": (first.memory_stats() or {}).get("bytes_limit"),
        }

    lines("versions", versions)
    lines("limits", limits)


# ---- Correctness ---------------------------------------------------------------------------------------------------


def check_attention(
    length: int, gradients: bool = True, rows: int = 2, heads: int = 12, kv_heads: int = 2, width: int = 128
) -> dict:
    """`attention.causal` in bfloat16 and its gradients against float32, which goes in blocks everywhere."""
    rng = np.random.default_rng(length)
    given = [  # from here on one program, for those that compile slowly
        rng.standard_normal((rows, length, n, width), np.float32).astype(jnp.bfloat16)
        for n in (heads, kv_heads, kv_heads, heads)
    ]

    def run(q, k, v, weight):
        if not gradients:
            return {"out": attention.causal(q, k, v)}
        out, back = jax.vjp(attention.causal, q, k, v)
        return dict(zip(("out", "dq", "dk", "dv"), (out, *back(weight)), strict=True))

    both = jax.jit(lambda *given: (run(*given), run(*(x.astype(jnp.float32) for x in given))))
    with jax.default_matmul_precision("highest"):
        got, want = jax.device_get(both(*given))
    error = {name: decode_attention.apart(got[name], want[name]) for name in want}
    return {"length": length, **error, "ok": all(x < decode_attention.TOLERANCE for x in error.values())}


_token_logprobs = jax.jit(policy.token_logprobs, static_argnums=1)


def check_sampler(
    config: transformer.ModelConfig, questions: int, group: int, prompt: int, tokens: int, chunk: int, slots: int
) -> list[dict]:
    """Log-probs that cached decoding drew with against `token_logprobs` of the same rows, in bfloat16.

    One line for the rows that fill the slots first, and one for the others, that get the slots of rows that ended. The
    weights are larger than those of `init`, so that attention is no average and a wrong key shows.
    """
    P, G, mesh, rng = questions, group, common.one_device(), np.random.default_rng(0)
    scale = (1536 / config.width) ** 0.5  # matrices of every width as those of 1,536

    @functools.partial(jax.jit, out_shardings=transformer.shardings(config, mesh))
    def init(key):
        params = transformer.init(config, key, jnp.bfloat16)
        layers = {name: x * jnp.bfloat16(3 * scale if x.ndim > 2 else 1) for name, x in params["layers"].items()}
        return params | {"embed": params["embed"] * jnp.bfloat16(scale), "layers": layers}

    params = init(jax.random.key(0))
    prompts = rng.integers(0, config.num_tokens, (P, prompt), np.int32)
    lengths = rng.integers(1, prompt + 1, P, np.int32)
    limits = common.lognormal(rng, (P, G), tokens / 2, 0.8, tokens)
    stop = (config.num_tokens,)  # never drawn
    out = sampler.sample(
        params, config, prompts, lengths, jax.random.key(1), G, tokens, 1.0, stop,
        chunk=chunk, slots=slots, limits=limits, mesh=mesh,
    )  # fmt: skip
    drawn, behaviour, ends = (np.asarray(x) for x in (out.tokens, out.logprobs, out.lengths))
    rows, real = np.zeros((P, G, prompt + tokens), np.int32), np.zeros((P, G, prompt + tokens), bool)
    want = np.zeros(rows.shape, np.float32)
    for p, g in np.ndindex(P, G):
        at = slice(lengths[p], lengths[p] + ends[p, g])
        rows[p, g, : lengths[p]], rows[p, g, at] = prompts[p, : lengths[p]], drawn[p, g, : ends[p, g]]
        want[p, g, at], real[p, g, at] = behaviour[p, g, : ends[p, g]], True
    whole = (np.repeat(lengths, G) + ends.ravel()).astype(np.int32)
    got, _ = _token_logprobs(params, config, rows.reshape(P * G, -1), whole, 1.0)
    real, apart = real.reshape(P * G, -1), np.abs(np.asarray(got) - want.reshape(P * G, -1))
    records = []
    for name, some in (("first", slice(slots)), ("refilled", slice(slots, None))):
        differences = apart[some][real[some]]
        mean, most = float(differences.mean()), float(differences.max())
        record = {"rows": name, "tokens": len(differences), "mean": round(mean, 5), "max": round(most, 5)}
        records.append(record | {"ok": mean < LOGPROB_TOLERANCE})  # of NaN too: not ok
    return records


def correctness(lines, small: bool) -> None:
    """In bfloat16: cached decoding, causal attention (one length is none that cuDNN takes), and that of packed rows."""
    config = dataclasses.replace(common.SHAPES["least" if small else "1.5b"], num_layers=1 if small else 2)
    lines("cached decode", check_sampler, config, *((3, 2, 8, 12, 11, 4) if small else (8, 4, 128, 128, 64, 4)))
    for length, gradients in ((33, True),) if small else ((64, True), (993, True), (1024, False)):
        sizes = {"rows": 1, "heads": 4, "width": 16} if small else {}
        lines("attention", check_attention, length, gradients, **sizes)
    lines("packed attention", packed_attention.check, small)


# ---- Decode attention ----------------------------------------------------------------------------------------------


def attend(lines, small: bool) -> None:
    """Decode attention of one layer, of rows at all lengths, by every body that there is."""
    pieces = (8, 8) if small else (128, 128, 256, 512, 1024, 1280)
    sizes = (16, pieces, 4, 4, 2, 8, 6, 0.6) if small else (320, pieces, 32, 12, 2, 128, 1000, 0.06)
    x = decode_attention.inputs(*sizes)
    for name, body in decode_attention.BODIES.items():
        lines(name, decode_attention.check, body, x, 1 if small else 10)


# ---- Head and sampling ---------------------------------------------------------------------------------------------


def time_head(config: transformer.ModelConfig, rows: int, how: str, calls: int) -> dict:
    """Time to form the distribution of each row, draw from it and look the token up, as a decode step does."""
    greedy, top_p = {"greedy": (True, 1.0), "sample": (False, 1.0), "top-p 0.95": (False, 0.95)}[how]
    keys = jax.random.split(jax.random.key(0), 3)
    matrix = jax.random.normal(keys[0], (config.vocab_size, config.width), jnp.bfloat16) / config.width**0.5
    hidden = jax.random.normal(keys[1], (rows, config.width), jnp.bfloat16)
    u = jax.random.uniform(keys[2], (rows,))

    @jax.jit
    def step(hidden, matrix, u):
        x = scoring.distribution(hidden, matrix, 1.0, config.num_tokens)
        token, logp = draw.choose(x, u, greedy, jnp.float32(top_p))
        return jnp.where(logp[..., None] > 0, 0, matrix[token])  # never above 0, but the compiler does not know

    seconds = common.fastest(lambda hidden: step(hidden, matrix, u), hidden, calls=calls)
    return {"rows": rows, "milliseconds": float(f"{1e3 * seconds:.4g}"), "tokens_per_second": round(rows / seconds)}


def head(lines, small: bool) -> None:
    """The output matrix and the choice of a token, for the rows of decoding and of an evaluation."""
    config = common.SHAPES["least" if small else "1.5b"]
    for rows in (16,) if small else (512, 4096):
        for how in ("greedy", "sample", "top-p 0.95"):
            lines(how, time_head, config, rows, how, 1 if small else 5)


# ---- What the compiler makes of an update --------------------------------------------------------------------------

_TYPED = re.compile(r"%([\w.-]+) = \(?(\w+\[[\d,]*\])")  # a name and its (first) type
_CALL = re.compile(r"%([\w.-]+) = .*?[ )]([a-z][\w-]*)\((.*?)\)")  # a name, its operation, its operands


def read_program(text: str, shapes: set[tuple[int, ...]], vocab: int) -> dict:
    """Of optimized HLO: float32 copies of these shapes, products with an axis of `vocab`, library calls.

    Returns:
      copies, copied_bytes: of float32 arrays of one of `shapes`; head_products: "type x type -> type" -> how many;
      calls: target -> how many.
    """
    types = dict(_TYPED.findall(text))
    copied, products = [], collections.Counter()
    for line in text.splitlines():
        found = _CALL.search(line)
        if not found:
            continue
        name, operation, operands = found.groups()
        if operation in ("copy", "copy-start"):
            copied.append(types.get(name, ""))
        if operation == "dot" or "__cublas" in line:
            operands = [types.get(x, "?") for x in re.findall(r"%([\w.-]+)", operands)[:2]]
            if any(re.search(rf"[\[,]{vocab}[,\]]", x) for x in (*operands, types.get(name, "?"))):
                kinds = [x.partition("[")[0] for x in (*operands, types.get(name, "?"))]
                products[f"{' x '.join(kinds[:-1])} -> {kinds[-1]}"] += 1
    wanted = {f"f32[{','.join(map(str, shape))}]": 4 * int(np.prod(shape)) for shape in shapes}
    return {
        "copies": sum(x in wanted for x in copied),
        "copied_bytes": sum(wanted.get(x, 0) for x in copied),
        "head_products": dict(products),
        "calls": dict(collections.Counter(re.findall(r'custom_call_target="([^"]*)"', text))),
    }


def check_update(flags: list[str], folder: str | None = None) -> dict:
    """The update of `benchmarks/update.py`: what its program needs and is made of, and a run of it.

    The optimized HLO is written into `folder`.
    """
    args = update.parse(flags)
    config, mesh, _ = common.setup(args)
    hyper = update.hyper_of(args)
    params = transformer.init(config, jax.random.key(args.seed), jnp.dtype(args.dtype), mesh)
    shapes = {x.shape for x in jax.tree.leaves(params)}
    state = jax.block_until_ready(learner.init_state(params, config, hyper, mesh))
    del params
    start = time.perf_counter()
    done = learner.update.lower(state, None, *update.batch(0, args, config, mesh), config, hyper, mesh).compile()
    compile_seconds = time.perf_counter() - start
    text, memory = done.as_text(), done.memory_analysis()
    if folder:
        with gzip.open(os.path.join(folder, "update.hlo.gz"), "wt") as f:
            f.write(text)

    def run(batch):
        nonlocal state  # donated
        state, _, metrics = done(state, None, *batch)
        return state, metrics

    common.first_call(lambda: run(update.batch(0, args, config, mesh)))
    timed = common.timed(lambda i: update.batch(i, args, config, mesh), run, args.repeats)
    return {
        "compile_seconds": round(compile_seconds, 1),
        "seconds": common.spread(seconds for seconds, *_ in timed),
        "peak_memory_bytes": common.peak_memory(mesh),
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        **_planned(args, config, hyper),  # to be compared with the temporary ones
        "gradient_bytes": 4 * common.count(config),
        **read_program(text, shapes, config.vocab_size),
    }


def _planned(args, config: transformer.ModelConfig, hyper: learner.UpdateSpec) -> dict:
    """Bytes that `dots_jax.plan` expects of the same update, beside its arguments."""
    if missing := lacking("ml_collections", "absl"):
        return {"planned_bytes": None, "planned": f"needs {missing}"}
    from configs import common as defaults
    from dots_jax import plan

    c = defaults.get_config()
    c.data.name, c.data.max_prompt_tokens, c.policy.dtype = "arithmetic", args.prompt, args.dtype
    c.rollout.group_size, c.rollout.max_tokens = args.group, args.max_tokens
    c.train.batch_size, c.selection.name, c.replay.fresh_fraction = args.questions, "uniform", 1.0
    fields = dataclasses.asdict(hyper) | {"loss": hyper.loss.__name__}
    c.learner.update({name: fields[name] for name in c.learner})
    phases = plan.plan(c, config, 1, float("inf"), jax.default_backend()).phases
    kinds = ("rows", "gradients", "gathered", "activations", "logits")
    return {"planned_bytes": max(sum(phases[p].get(kind, 0) for kind in kinds) for p in ("loss", "backward"))}


def micro(lines, small: bool) -> None:
    """An update in two micro-batches, all layers."""
    flags = [*(SMALL if small else BATCH), "--questions=4", "--minibatches=1", "--repeats=2"]
    lines("compiled update", check_update, [*flags, f"--micro-tokens={64 if small else 16384}"], lines.folder)


# ---- Benchmarks ----------------------------------------------------------------------------------------------------


def time_update(lines, small: bool) -> None:
    """The update benchmark on ragged rows, what real runs have."""
    flags = [*SMALL, "--repeats=1", "--minibatches=1", "--micro-tokens=32", "--peak=0.1"]
    flags = flags if small else [*BATCH, "--questions=32", "--minibatches=2", "--kernels"]
    ragged = ["--lengths=lognormal", "--useful=0.5"] if small else [*RAGGED, "--useful=0.6", "--repeats=2"]
    lines("ragged", update.main, flags + ragged)


def time_sampler(lines, small: bool) -> None:
    """The rollout benchmark on ragged rows."""
    flags = [*SMALL, "--chunk=11", "--bandwidth=10", "--peak=0.1"] if small else [*BATCH, "--max-tokens=2048"]
    flags += ["--no-prefill", "--repeats=1", "--lengths=lognormal"]
    lines("ragged", rollout.main, flags if small else [*flags, "--mean=600", "--kernels"])


def score(lines, small: bool) -> None:
    """Predicted difficulties of a pool."""
    from benchmarks import score

    tiny = ["--questions=32", "--references=4", "--embedding=8", "--widths=8", "--repeats=1"]
    lines("score", score.main, tiny if small else [])


# ---- The main job --------------------------------------------------------------------------------------------------

_NEEDS = ("ml_collections", "absl", "orbax", "etils", "transformers", "tensorboardX", "matplotlib")
_TINY = {
    "train.batch_size": 4,
    "train.steps": 8,
    "train.checkpoint_every": 2,
    "train.eval_every": 8,
    "eval.greedy": False,
    "selection.name": "uniform",
    "replay.fresh_fraction": 1.0,
    "data.num_questions": 32,
    "data.num_heldout": 66,
    "rollout.group_size": 2,
    "rollout.max_tokens": 8,
    "rollout.chunk": 7,
    "learner.minibatches": 1,
    "learner.micro_tokens": 64,
}
_FULL = {"train.steps": 20, "train.eval_every": 20, "train.checkpoint_every": 5}


def check_main_job(fields: dict) -> dict:
    """The quickstart: killed as soon as there is a checkpoint, started again by the same command, to its end."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--config.{name}={value}" for name, value in fields.items()]
        flags += [f"--workdir={folder}/run", f"--config.embedding.cache={folder}/embeddings"]
        command = [sys.executable, "-m", "dots_jax.main", "--config=configs/quickstart.py", *flags]
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr)
        checkpoint = Path(folder, "run", "checkpoints", str(fields["train.checkpoint_every"]))
        while not checkpoint.is_dir() and process.poll() is None:
            time.sleep(0.01)
        killed = process.poll() is None
        process.kill()
        code = process.wait()
        if not killed and code:
            raise RuntimeError(f"the main job ended with exit code {code} before it was killed")
        middle = time.perf_counter()
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)
        end = time.perf_counter()
        rows = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    accuracy = [row["eval/accuracy"] for row in rows if row.get("eval/accuracy") is not None]
    whole = [row["step"] for row in rows] == list(range(fields["train.steps"] + 1))
    return {
        "steps": fields["train.steps"],
        "seconds_to_kill": round(middle - start, 1),
        "seconds_second_start": round(end - middle, 1),
        "accuracy": {"before": round(accuracy[0], 4), "after": round(accuracy[-1], 4)},
        "rises": accuracy[-1] > accuracy[0],  # of a few steps: no fault where it does not
        "ok": killed and whole and bool(np.isfinite(accuracy).all()),
    }


def main_job(lines, small: bool) -> None:
    """The whole program as a user runs it."""
    if missing := lacking(*_NEEDS):
        return lines("main job", lambda: {"skipped": f"needs {missing}"})
    lines("main job", check_main_job, _TINY if small else _FULL)


# ---- Lines ---------------------------------------------------------------------------------------------------------


def lacking(*modules: str) -> str:
    """Which of them are not installed, by the names of their packages."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return ", ".join(name.replace("_", "-") for name in missing)


class Lines:
    """Runs checks; writes a line for what each returns, or for its error, at once."""

    def __init__(self, section: str, folder: str, stamp: dict):
        self.section, self.folder, self.stamp, self.failed = section, folder, stamp, False

    def __call__(self, what: str, function: Callable, *args, **options) -> None:
        """`function` returns fields of a line, or a list of them; `ok` false counts as an error."""
        try:
            with contextlib.redirect_stdout(sys.stderr):  # benchmarks print their records, too
                records = function(*args, **options)
        except Exception as error:
            traceback.print_exc()
            said = " ".join(str(error).split())[:300]
            records = {"error": f"{type(error).__name__}: {said}"}
        for record in records if isinstance(records, list) else [records]:
            self.failed |= "error" in record or not record.get("ok", True)
            first = jax.devices()[0]
            where = {"device": first.device_kind, "backend": first.platform, "jax": jax.__version__}
            line = {"section": self.section, "what": what} | record | where | self.stamp
            common.emit(line, os.path.join(self.folder, "gpu.jsonl"))


SECTIONS = {
    "device": device,
    "correctness": correctness,
    "attention": attend,
    "head": head,
    "micro": micro,
    "update": time_update,
    "sampler": time_sampler,
    "score": score,
    "main": main_job,
}


if __name__ == "__main__":
    name, folder, stamp, small = sys.argv[1:]
    lines = Lines(name, folder, json.loads(stamp))
    SECTIONS[name](lines, small == "1")
    sys.exit(3 if lines.failed else 0)
