#!/usr/bin/env bash
# What gpu.sh and tpu_vm.sh share: launch/host.sh EXTRA FLAGS...  makes the environment with that extra, and trains.
# DEVICE=cpu leaves the extra out and runs on the CPU; PYTHON=FILE takes an interpreter that has everything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

device=${DEVICE:-$1}
shift
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=.venv/bin/python
    if [[ ! -e .venv/ready-$device ]]; then
        packages=.
        [[ $device == cpu ]] || packages=".[$device]"
        python3 -m venv .venv
        .venv/bin/pip install --quiet -e "$packages"
        touch ".venv/ready-$device"
    fi
fi

export JAX_PLATFORMS=$device # without it a host whose driver fails or whose TPU is taken would train on its CPU
exec "$PYTHON" -m dots_jax.main "$@"
