"""Answers graded per second; prints one JSON line: `DOTS_DATA=DIR python benchmarks/grading.py`.

With `--table [--graders=DIR]` instead how often the verdict is right, as rows of a table: ours, math-verify as its
documentation uses it, and two rule-based graders of verl, where `pip install --no-deps --target DIR verl pylatexenc`
has put them.

Ordinary answers: those of questions drawn from three training sets; every other one is right, written a little
differently, the rest are another question's. `quick` is the share
that text or exact arithmetic decides, `processes_per_second` the rate of the others alone. On a busy machine `cpu_ms`
says more: processor time of the processes per answer, without their start.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import random
import re
import signal
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from dots_jax.reward import Question, find_answer, mathematics

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
    hard = [p for p in ordinary if mathematics.quick(find_answer(p[0]), p[1]) is None]
    rates, idle = {}, 0.0
    for name, batch in (("start", []), ("mixed", ordinary), ("processes", hard)):
        pool, before = mathematics.Pool(), _processor_seconds()
        pool.submit([rf"\boxed{{x+{k}}}" for k in range(40)], [Question("", "y+z")] * 40)()
        start = time.perf_counter()
        if batch:
            _, verdicts = pool.submit([c for c, _ in batch], [Question("", gold) for _, gold in batch])()
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


def math_verify_default() -> Callable[[str, str], bool]:
    """`verify(parse(gold), parse(answer))`, the gold answer between dollars."""
    from math_verify import parse, verify

    return lambda completion, gold: verify(
        parse(gold if "$" in gold or "boxed" in gold else f"${gold}$"), parse(completion)
    )


def verl(directory: str) -> dict[str, Callable[[str, str], bool]]:
    """Its graders, loaded without the package, which imports a cluster's worth of others."""
    folder = Path(directory) / "verl" / "utils" / "reward_score"
    sys.path.append(directory)
    for name in ("verl", "verl.utils", "verl.utils.py_functional"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["verl.utils.py_functional"].timeout_limit = lambda **_: lambda function: function

    def load(path):
        name = path.stem if path.is_file() else path.name
        file = path if path.is_file() else path / "__init__.py"
        spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(file.parent)])
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.compute_score

    rules, prime = load(folder / "math_reward.py"), load(folder / "prime_math")
    return {
        "verl, math_reward": lambda completion, gold: rules(completion, gold) > 0.5,
        "verl, prime_math": lambda completion, gold: bool(prime(completion, gold)[0]),
    }


@contextlib.contextmanager
def deadline(seconds: int):
    """Raises TimeoutError in what takes longer."""

    def late(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def table(data: Path, graders: str | None) -> str:
    """Rows: of each file how many verdicts are right, and how many wrong answers are paid and right ones rejected."""
    pool = mathematics.Pool()
    judges = {"dots_jax": None, "math-verify": math_verify_default(), **(verl(graders) if graders else {})}
    lines = []
    for file in ("reports", "answer_pairs"):
        pairs = [json.loads(line) for line in (data / "grading" / f"{file}.jsonl").read_text().splitlines()]
        texts = [p["prediction"] if r"\boxed" in p["prediction"] else rf"\boxed{{{p['prediction']}}}" for p in pairs]
        golds, expected = [p["gold"] for p in pairs], [p["equal"] for p in pairs]
        for name, judge in judges.items():
            if judge:
                got = []
                for text, gold in zip(texts, golds, strict=True):
                    try:
                        with deadline(10), contextlib.redirect_stdout(None):
                            got.append(bool(judge(text, gold)))
                    except Exception:
                        got.append(False)
            else:
                got = list(pool.submit(texts, [Question("", gold) for gold in golds])()[0] > 0)
            right = sum(g == e for g, e in zip(got, expected, strict=True))
            paid = sum(g and not e for g, e in zip(got, expected, strict=True))
            lines.append(f"| {file} | {name} | {right / len(pairs):.1%} | {paid} | {len(pairs) - right - paid} |")
    pool.close()
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--graders")
    flags = parser.parse_args()
    data = Path(os.environ["DOTS_DATA"])
    print(table(data, flags.graders) if flags.table else json.dumps(measure(data)))
