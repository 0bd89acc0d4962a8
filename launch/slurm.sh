#!/usr/bin/env bash
# SLURM:  sbatch launch/slurm.sh --config=configs/quickstart.py --workdir=/shared/runs/first   (from the checkout)
#
# Needs a file system that all nodes share, with this checkout, its environment (python3 -m venv .venv, then
# .venv/bin/pip install -e '.[cuda]', once on a login node), the policy and the --workdir; and the ports from 61440 on
# open between the nodes. Fill in below what your cluster wants. DOTS_DATA and HF_TOKEN reach the processes as they are
# when the job is submitted.
#
# After a preemption or a failed node SLURM queues the job again under the same number, and it continues from the last
# checkpoint: give it a fixed --workdir, and --config.train.checkpoint_every as many steps as you are ready to lose.
#SBATCH --job-name=dots_jax
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
# As many tasks as GPUs, and no --gpus-per-task: JAX gives every process the GPU of its rank on the node.
# Also, if your cluster asks for them: --partition, --account, --constraint.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true ${XLA_FLAGS:-}" # launch/gpu.sh says why
# All processes must see it, and then none compiles what another has compiled before.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$PWD/runs/compiled}
if ! command -v srun >/dev/null; then
    echo "error: no srun here; submit this with sbatch on a machine of the cluster" >&2
    exit 2
fi
# One process that fails ends all, rather than leaving them to wait for it.
exec srun --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" -m dots_jax.main --distributed "$@"
