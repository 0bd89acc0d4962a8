#!/usr/bin/env bash
# On a TPU VM of one host:  launch/tpu_vm.sh --config=configs/quickstart.py --workdir=runs/first
#
# Needs a TPU VM (quota for its type in the zone; a software version with Python 3.11 or later, such as those on Ubuntu
# 24.04) and a package index for the first run. What is in no local or mounted directory (--config.policy.path,
# DOTS_DATA=DIR for question files) comes from the Hugging Face hub, to HF_HOME; HF_TOKEN is for what it wants a token
# for. Spot VMs vanish: keep --workdir on a mounted disk, and the same command continues the run.
# --config.mesh.* splits it over the chips. Slices of several hosts: tpu_pod.sh.
#
# DEVICE=cpu runs the same without TPUs; PYTHON=FILE takes an interpreter that has everything, and installs nothing.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/host.sh" tpu "$@"
