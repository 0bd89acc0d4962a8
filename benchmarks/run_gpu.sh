#!/bin/sh
# The table of one 80 GB GPU, Qwen2.5-1.5B in bfloat16: appends its JSON lines to benchmarks/results/gpu.jsonl
# (estimated at 6 to 8 minutes, compilation included). PYTHON names the interpreter.
set -e
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
out=--output=${OUT:-benchmarks/results}/gpu.jsonl
batch="--shape=1.5b --dtype=bfloat16 --questions=64 --group=8 --prompt=256 --max-tokens=1024 --repeats=2 $out"

$python benchmarks/rollout.py $batch --chunk=128
$python benchmarks/rollout.py $batch --chunk=128 --lengths=geometric --mean=256

# 512 rows in two optimizer steps.
update="$batch --minibatches=2 --micro-rows=16"
$python benchmarks/update.py $update --buckets=1
$python benchmarks/update.py $update --buckets=4 --lengths=lognormal --mean=384 --useful=0.6

# The difficulty of a pool; needs flax as well.
$python benchmarks/score.py $out
