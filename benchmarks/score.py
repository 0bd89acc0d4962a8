"""How fast the difficulty of every question of a pool is predicted, once compiled: one JSON line for each stage.

python benchmarks/score.py --questions=100000 --references=256 --embedding=1536
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np

from benchmarks import common
from dots_jax.core.errors import UserError
from dots_jax.difficulty import predictor


def main(argv=None) -> list[dict]:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--questions", type=int, default=100_000, help="N")
    p.add_argument("--references", type=int, default=256, help="K")
    p.add_argument("--embedding", type=int, default=1536, help="numbers in an embedding, D")
    p.add_argument("--widths", default="896,256", help="of the towers, W")
    p.add_argument("--repeats", type=int, default=3, help="timed runs, after the warm-up; the best counts")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--output", metavar="FILE", help="also append the JSON lines here")
    args = p.parse_args(argv)
    try:
        widths = [int(x) for x in args.widths.split(",")]
    except ValueError:
        raise UserError(f"--widths={args.widths}: numbers with commas between, such as 896,256") from None
    if min(args.questions, args.references, args.embedding, args.repeats, *widths) < 1:
        raise UserError("every number but the seed must be at least 1")
    load = round(os.getloadavg()[0], 2)  # of the machine before we started
    rng = np.random.default_rng(args.seed)
    query = jax.device_put(rng.standard_normal((args.questions, args.embedding), np.float32))
    reference = jax.device_put(rng.standard_normal((args.references, args.embedding), np.float32))
    difficulty = jax.device_put(rng.integers(0, 9, args.references).astype(np.float32) / 8)
    records = []
    for width in widths:
        params = predictor.init(jax.random.key(args.seed), args.embedding, width)
        features = predictor.encode(params, query)
        stages = {
            "encode": lambda _, params=params: predictor.encode(params, query),
            "score": lambda _, params=params, features=features: predictor.score(
                params, features, reference, difficulty, "code", True
            ),
        }
        for stage, function in stages.items():
            jax.block_until_ready(function(None))
            seconds = [run[0] for run in common.timed(lambda i: i, function, args.repeats)]
            record = {
                "benchmark": "score",
                "stage": stage,
                "device": jax.devices()[0].device_kind,
                "backend": jax.default_backend(),
                "jax": jax.__version__,
                "load": load,
                "questions": args.questions,
                "references": args.references,
                "embedding": args.embedding,
                "width": width,
                "seconds": float(f"{min(seconds):.4g}"),
                "questions_per_second": round(args.questions / min(seconds)),
            }
            records.append(common.emit(record, args.output))
    return records


if __name__ == "__main__":
    common.finish(main)
