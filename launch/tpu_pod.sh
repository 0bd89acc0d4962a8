#!/usr/bin/env bash
# A TPU slice of several hosts, started from your own machine:
#   TPU=name ZONE=zone launch/tpu_pod.sh --workdir=/mnt/share/runs/first --config.mesh.fsdp=4
#
# Needs gcloud, logged in; a slice, for which the project has quota, with an image of Python 3.11 or later; SSH to its
# hosts; this checkout on each of them, in CHECKOUT (default: dots_jax in the home directory); and a file system mounted
# on all (Filestore or other NFS) for the --workdir, and for the policy (--config.policy.path) if it is your own:
#   gcloud compute tpus tpu-vm create $TPU --zone=$ZONE --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite
#   gcloud compute tpus tpu-vm scp --recurse --worker=all --zone=$ZONE . $TPU:dots_jax
# DOTS_DATA (a directory there) and HF_TOKEN are handed on if set.
#
# All hosts run the same command and find each other; only the first one prints and writes. If one fails all end, and
# the same command continues the run from its last checkpoint.
set -euo pipefail
: "${TPU:?is the name of the slice}" "${ZONE:?is its zone}"

command="cd $(printf %q "${CHECKOUT:-dots_jax}") && env"
for name in DOTS_DATA HF_TOKEN; do
    [[ -z ${!name:-} ]] || command+=" $name=$(printf %q "${!name}")"
done
command+=" launch/tpu_vm.sh --distributed$(printf ' %q' "$@")"
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$command"
