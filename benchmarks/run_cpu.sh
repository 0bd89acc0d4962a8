#!/bin/sh
# The CPU table of benchmarks/README.md: appends its JSON lines to benchmarks/results/cpu.jsonl (about 5 minutes).
# On a quiet machine, please: the field "load" says whether it was. PYTHON names the interpreter.
set -e
cd "$(dirname "$0")/.."
export JAX_PLATFORMS=cpu
python=${PYTHON:-python}
out=--output=benchmarks/results/cpu.jsonl

# The quickstart: 256 rows of up to 40 tokens, in chunks of 16.
tiny="--shape=tiny --questions=32 --group=8 --prompt=16 --max-tokens=32 $out"
$python benchmarks/rollout.py $tiny --chunk=32
$python benchmarks/rollout.py $tiny --chunk=32 --lengths=lognormal --mean=13
$python benchmarks/update.py $tiny --micro-tokens=256
$python benchmarks/update.py $tiny --micro-tokens=256 --lengths=lognormal --mean=13 --useful=0.3

# The shape of Qwen2.5-0.5B, very few rows.
small="--shape=0.5b --questions=2 --group=2 --prompt=32 --repeats=3 $out"
$python benchmarks/rollout.py $small --max-tokens=17 --chunk=32

# The predictor, at the paper's sizes and in a narrower one.
$python benchmarks/score.py $out
