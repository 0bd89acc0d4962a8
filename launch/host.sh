#!/usr/bin/env bash
# What gpu.sh and tpu_vm.sh share: launch/host.sh EXTRA FLAGS...  makes the environment with that extra, and trains.
# DEVICE=cpu leaves the extra out and runs on the CPU; PYTHON=FILE takes an interpreter that has everything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in
    cuda | tpu) ;;
    *)
        echo "error: this is what launch/gpu.sh and launch/tpu_vm.sh share; run one of them" >&2
        exit 2
        ;;
esac
script=$([[ $1 == cuda ]] && echo gpu.sh || echo tpu_vm.sh)
device=${DEVICE:-$1}
shift
for flag in "$@"; do
    if [[ $flag == -h || $flag == --help ]]; then # installs nothing
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "launch/$script"
        echo "All flags, once that is installed: .venv/bin/python -m dots_jax.main --help"
        exit 0
    fi
done
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
