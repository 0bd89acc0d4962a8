"""Answers graded per second; prints one JSON line: `DOTS_DATA=DIR python benchmarks/grading.py`.

Ordinary answers: those of questions drawn from three training sets; every other one is right, written a little
differently, the rest are another question's. One of the 4,000 is a power tower and times out. `quick` is the share
that text or exact arithmetic decides, `math_verify_per_second` the rate of the others alone. On a busy machine `cpu_ms`
says more: processor time of the processes per answer, without their start.
"""

import json
import os
import random
import re
import time
from pathlib import Path

import pyarrow.parquet as pq

from dots_jax.reward import mathematics

SETS = ("deepscaler10k", "math", "deepmath5k")


def pairs(data: Path, count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Completions and golds."""
    golds = [a for s in SETS for a in pq.read_table(data / "train" / f"{s}.parquet")["answer"].to_pylist()]
    random.Random(seed).shuffle(golds)
    golds = golds[: count + 1]
    answers = [_rewrite(golds[i + i % 2]) for i in range(count)]
    return [(rf"Therefore the answer is $\boxed{{{a}}}$.", g) for a, g in zip(answers, golds[:-1], strict=True)]


def _rewrite(gold: str) -> str:
    return re.sub(r"(?<=[0-9])\\(sqrt|pi)", r"\\cdot\\\1", re.sub(r"\^([0-9a-z])", r"^{\1}", gold)).replace("+", " + ")


def _processor_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def measure(data: Path, count: int = 4000) -> dict:
    """Rates, after the processes have started."""
    ordinary = pairs(data, count)
    hard = [p for p in ordinary if mathematics.quick(mathematics.final_answer(p[0]), p[1]) is None]
    rates, idle = {}, 0.0
    for name, batch in (("start", []), ("mixed", ordinary), ("math_verify", hard)):
        pool, before = mathematics.Pool(), _processor_seconds()
        pool.submit([rf"\boxed{{x+{k}}}" for k in range(40)], ["y+z"] * 40)()
        start = time.perf_counter()
        if batch:
            _, verdicts = pool.submit(*zip(*batch, strict=True))()
            rates[f"{name}_per_second"] = round(len(batch) / (time.perf_counter() - start), 1)
        pool.close()
        spent = _processor_seconds() - before
        if batch:
            rates[f"{name}_cpu_ms"] = round(1e3 * (spent - idle) / len(batch), 2)
        else:
            idle = spent
    return {
        **rates,
        "answers": count,
        "quick": round(1 - len(hard) / count, 3),
        "verdicts": [int((verdicts == v).sum()) for v in range(5)],
        "workers": pool.workers,
        "device": "CPU",
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(os.environ["DOTS_DATA"]))))
