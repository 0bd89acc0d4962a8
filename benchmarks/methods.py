"""Runs of the quickstart job for the table of selectors and replay rules, docs/results/selectors.md.

Each run is a line of `python -m dots_jax.main`; what is finished is left alone, so that it can be stopped at any time.
Several of these may run beside each other with other methods or seeds.
"""

import argparse
import contextlib
import io
import os
import sys
import time

from dots_jax import main

REPLAY = {  # beside each of three selectors
    "": "--config.replay.fresh_fraction=1",
    "+paper": "--config.replay.fresh_fraction=0.5 --config.replay.last_step=0 --config.replay.start=full "
    "--config.replay.insert=useful --config.learner.loss=plain",
    "+early": "--config.replay.fresh_fraction=0.5",
    "+gated": "--config.replay.fresh_fraction=0.5 --config.replay.last_step=0 --config.replay.gate=0.5",
}
SELECTORS = {
    "uniform": "",
    "dapo": "",
    "static": "",
    "dots": "",
    "mopps": "",
    "greso": "",
    "bots": "--config.selection.decay=0.9",
    "pcl": "--config.predictor.learning_rate=3e-3",
    "graph": "",
    "posterior": "",
    "per_token": "--config.selection.name=posterior --config.selection.per_token=True",
    "speed": "",
    "oracle": "",
    "signs": "--config.selection.name=uniform --config.learner.loss=benchmarks/control.py:signs",
}


def flags(method: str) -> list[str]:
    """Of the command line, for a method such as dots+paper."""
    selector, plus, rule = method.partition("+")
    known = SELECTORS[selector]
    name = [] if "selection.name" in known else [f"--config.selection.name={selector}"]
    return [*name, *known.split(), *REPLAY[plus + rule].split()]


def run(method: str, seed: int, rate: float, out: str, more: list[str]) -> None:
    """One run, unless it is there."""
    workdir = os.path.join(out, f"{method}-{rate:g}-{seed}")
    if os.path.exists(os.path.join(workdir, "done")):
        return
    argv = ["--config=configs/quickstart.py", f"--workdir={workdir}", f"--config.seed={seed}"]
    argv += [f"--config.learner.learning_rate={rate}", "--config.eval.greedy=False", *flags(method), *more]
    started, screen = time.time(), io.StringIO()
    with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
        code = main.main(argv)
    if code:
        print(f"{workdir}: exit {code}\n{screen.getvalue()}", flush=True)
        return
    with open(os.path.join(workdir, "done"), "w") as file:
        file.write(screen.getvalue())
    print(f"{workdir}: {time.time() - started:.0f} s", flush=True)


def numbers(text: str) -> list[int]:
    """0-3,7 -> [0, 1, 2, 3, 7]."""
    parts = [[int(x) for x in part.split("-")] for part in text.split(",")]
    return [i for part in parts for i in range(part[0], part[-1] + 1)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--methods", required=True, help="with commas between: a selector, and +paper, +early or +gated"
    )
    parser.add_argument("--seeds", required=True, type=numbers, help="such as 0-7,11")
    parser.add_argument("--rates", default="1e-4", help="learning rates")
    parser.add_argument("--out", default="runs/selectors", help="where the workdirs are")
    arguments, rest = parser.parse_known_args()
    for seed in arguments.seeds:
        for method in arguments.methods.split(","):
            for rate in map(float, arguments.rates.split(",")):
                run(method, seed, rate, arguments.out, rest)
    sys.exit(0)
