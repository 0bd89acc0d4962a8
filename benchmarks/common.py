"""What both benchmarks share: model shapes, lengths, timing, and the measured limits of the device."""

import argparse
import collections
import json
import math
import os
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dots_jax.core import sharding
from dots_jax.core.errors import UserError
from dots_jax.policy import shapes, transformer

SHAPES = {
    "tiny": transformer.ModelConfig(22, 96, 3, 4, 2, 256, 1e4, 1e-6, True, 128, 22),  # the quickstart's policy
    "least": transformer.ModelConfig(
        40, 16, 1, 4, 2, 24, 1e4, 1e-6, True, 128, 37
    ),  # shows that a program works, no more
    **{name.removeprefix("qwen2.5-"): shape for name, shape in shapes.SHAPES.items()},
}


count = shapes.count


def parser(description: str) -> argparse.ArgumentParser:
    """The flags that both benchmarks have."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--shape", choices=SHAPES, default="tiny", help="published, the quickstart's, or one layer")
    p.add_argument("--model", metavar="FILE", help="a Hugging Face config.json, instead of --shape")
    p.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    p.add_argument("--mesh", default="-1,1,1", help="devices along data,fsdp,tensor; -1 takes what is left")
    p.add_argument("--questions", type=int, default=32, help="P")
    p.add_argument("--group", type=int, default=8, help="completions per question, G")
    p.add_argument("--prompt", type=int, default=24, help="tokens of every prompt, S")
    p.add_argument("--max-tokens", type=int, default=40, help="most tokens of a completion, T")
    p.add_argument("--mean", type=float, help="mean length before the cut at --max-tokens (default: half of it)")
    p.add_argument("--sigma", type=float, default=0.8, help="of log-normal lengths, in log space")
    p.add_argument("--temperature", type=float, default=1.0)
    p.add_argument("--repeats", type=int, default=5, help="timed runs, after the warm-up")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--kernels", action="store_true", help="trace a call, too: which kernels of a GPU took the time")
    p.add_argument("--output", metavar="FILE", help="also append the JSON line here")
    return p


def setup(args) -> tuple[transformer.ModelConfig, jax.sharding.Mesh, dict]:
    """The model's shape, the mesh, and the part of the record that is known before measuring.

    Raises:
      UserError: flags that do not fit together.
    """
    for name in ("questions", "group", "prompt", "max_tokens", "repeats"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    args.mean = args.mean or max(args.max_tokens / 2, 1)
    config = SHAPES[args.shape]
    if args.model:
        with open(args.model) as f:
            config = transformer.ModelConfig.from_hf(json.load(f))
    try:
        sizes = [int(x) for x in args.mesh.split(",")]
        data, fsdp, tensor = sizes
    except ValueError:
        raise UserError(f"--mesh={args.mesh}: three numbers, such as 1,1,1") from None
    devices = jax.devices() if -1 in sizes else jax.devices()[: data * fsdp * tensor]
    mesh = sharding.make_mesh(data, fsdp, tensor, devices)
    record = {
        "device": mesh.devices.flat[0].device_kind,
        "backend": jax.default_backend(),
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "jax": jax.__version__,
        "load": round(os.getloadavg()[0], 2),  # of the machine before we started
        "model": args.model or args.shape,
        "parameters": count(config),
        "dtype": args.dtype,
        "questions": args.questions,
        "group": args.group,
        "prompt": args.prompt,
        "max_tokens": args.max_tokens,
        "lengths": args.lengths,
        "mean": args.mean if args.lengths != "full" else None,
        "sigma": args.sigma if args.lengths == "lognormal" else None,
    }
    return config, mesh, record


def one_device() -> jax.sharding.Mesh:
    """The mesh of the first device alone."""
    return sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])


def lognormal(rng: np.random.Generator, shape, mean: float, sigma: float, limit: int) -> np.ndarray:
    """Lengths, int32, log-normal with this mean before the cut to 1 .. limit."""
    x = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, shape)
    return np.clip(np.rint(x), 1, limit).astype(np.int32)


def first_call(function) -> tuple[float, object]:
    """Seconds of a call that compiles, and its result."""
    start = time.perf_counter()
    out = jax.block_until_ready(function())
    return time.perf_counter() - start, out


_compiled = [0]


def _listen(event, duration, **_):
    _compiled[0] += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_listen)


def timed(prepare, function, repeats: int) -> list[tuple]:
    """(seconds, what was prepared, result) of `function(prepare(i))` for `repeats` different i, each waited for.

    `prepare` is outside the timing. A call in which anything was compiled (a ragged batch that reached a cache
    size of its own, say) is left out and another one made.
    """
    out, i = [], 0
    while len(out) < repeats:
        given = jax.block_until_ready(prepare(i))
        before, start = _compiled[0], time.perf_counter()
        result = jax.block_until_ready(function(given))
        seconds = time.perf_counter() - start
        if _compiled[0] == before:
            out.append((seconds, given, result))
        i += 1
        if i > 4 * repeats + 8:
            raise RuntimeError("every call compiles something: there is nothing to time")
    return out


def spread(values) -> dict:
    """Median, least and largest, to 4 significant digits (integers exactly)."""
    values = list(values)

    def short(x):
        return int(x) if float(x).is_integer() else float(f"{x:.4g}")

    return {"median": short(statistics.median(values)), "min": short(min(values)), "max": short(max(values))}


def fastest(function, x, calls: int, rounds: int = 5) -> float:
    """Seconds of one call of x -> x: the best round of `calls` calls in a row."""
    best = np.inf
    x = jax.block_until_ready(function(x))
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            x = function(x)
        jax.block_until_ready(x)
        best = min(best, (time.perf_counter() - start) / calls)
    return best


def measure_bandwidth(size: int | None = None) -> float:
    """Memory bandwidth of one device in bytes/s.

    `size` float32 numbers (1 GiB of them, on a CPU 256 MiB) get 1 added in place: each is read once and written once.
    Ten dispatches in a row, the best of five such rounds.
    """
    size = size or (2**26 if jax.default_backend() == "cpu" else 2**28)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    return 2 * 4 * size / fastest(add, jnp.zeros(size, jnp.float32), calls=10)


def measure_matmul(dtype, n: int | None = None) -> float:
    """FLOP/s of one device in a chain of square matrix products in `dtype` at jax's default precision.

    Width n, by default 8192 (on a CPU 2048). Ten dispatches in a row (three on a CPU), the best of five such rounds.
    """
    cpu = jax.default_backend() == "cpu"
    n = n or (2048 if cpu else 8192)
    b = jax.random.normal(jax.random.key(0), (n, n), dtype) / n**0.5
    multiply = jax.jit(lambda a, b: a @ b)
    return 2 * n**3 / fastest(lambda a: multiply(a, b), b, calls=3 if cpu else 10)


def kernels(function, after: float = 0.0, seconds: float = 60.0, most: int = 16) -> dict:
    """What a GPU does while `function` runs: its busy share of the time, and the kernels that take most of it.

    Traced from `after` seconds on, for at most `seconds`. Elsewhere than on a GPU there is nothing to tell.
    """
    folder, done = tempfile.mkdtemp(), threading.Event()

    def trace():
        if not done.wait(after):
            jax.profiler.start_trace(folder)
            done.wait(seconds)
            jax.profiler.stop_trace()

    thread = threading.Thread(target=trace)
    thread.start()
    jax.block_until_ready(function())
    done.set()
    thread.join()
    taken, first, last = collections.Counter(), math.inf, 0.0
    for file in Path(folder).rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines if plane.name.startswith("/device:GPU") else ():
                for event in line.events if line.name.startswith("Stream") else ():
                    taken[re.sub(r"\d+", "#", event.name)[:60]] += event.duration_ns
                    first, last = min(first, event.start_ns), max(last, event.start_ns + event.duration_ns)
    shutil.rmtree(folder)
    busy = sum(taken.values())
    if not busy:
        return {}
    share = {name: round(ns / busy, 4) for name, ns in taken.most_common(most)}
    return {"kernel_seconds": round(busy / 1e9, 4), "busy_share": round(busy / (last - first), 4), "kernels": share}


def peak_memory(mesh) -> int | None:
    """The most bytes that one device of the mesh has held since the process started, None where not known."""
    stats = [d.memory_stats() or {} for d in mesh.devices.flat]
    return max((s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s), default=None)


def finish(main) -> None:
    """Runs `main` as a script: mistakes of the user are one line and exit code 2."""
    try:
        main()
    except (UserError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)


def emit(record: dict, output: str | None) -> dict:
    """Prints the record as one JSON line, and appends it to the file `output`."""
    line = json.dumps(record)
    print(line, flush=True)
    if output:
        with open(output, "a") as f:
            f.write(line + "\n")
    return record
