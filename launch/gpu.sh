#!/usr/bin/env bash
# One host with NVIDIA GPUs:  launch/gpu.sh --config=configs/quickstart.py --workdir=runs/first
#
# Needs Python 3.11 or later with venv, a driver for CUDA 12 (the libraries come with the Python packages), 10 GB
# of disk, and a package index for the first run. What is in no local directory (--config.policy.path, DOTS_DATA=DIR for
# question files) comes from the Hugging Face hub, to HF_HOME; HF_TOKEN is for what it wants a token for.
# The same command continues a run that was stopped. --config.mesh.* splits it over the GPUs.
#
# DEVICE=cpu runs the same without GPUs; PYTHON=FILE takes an interpreter that has everything, and installs nothing.
set -euo pipefail

# On several GPUs: gathers of fsdp and sums of gradients run beside the computation.
export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true ${XLA_FLAGS:-}"
exec "$(dirname "${BASH_SOURCE[0]}")/host.sh" cuda "$@"
