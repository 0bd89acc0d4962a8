"""The launch scripts as they are, with a CPU in place of the accelerator and stand-ins for the cluster's commands."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_train import FIELDS

from dots_jax.core.files import ROOT

LAUNCH = Path(ROOT) / "launch"
ONE_STEP = FIELDS | {"train.steps": 1, "selection.name": "uniform", "replay.fresh_fraction": 1.0}


@pytest.fixture(scope="module")
def environ(compiled):
    return os.environ | compiled | {"PYTHON": sys.executable, "DEVICE": "cpu"}


def stand_in(directory, name, text):
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/usr/bin/env bash\nset -euo pipefail\n{text}\n")
    (directory / name).chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


def run(script, *args, cwd=ROOT, env):
    return subprocess.run([LAUNCH / script, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    "script", ["gpu.sh", *(pytest.param(name, marks=pytest.mark.slow) for name in ("slurm.sh", "tpu_vm.sh"))]
)  # the third differs from the first in names
def test_trains(script, environ, tmp_path):
    """From anywhere, with the arguments handed on; under SLURM as one of its tasks, which JAX recognises."""
    slurm = "SLURM_JOB_ID=7 SLURM_STEP_NODELIST=localhost SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0"
    env = environ | stand_in(tmp_path / "bin", "srun", f'shift; exec env {slurm} "$@"')
    env |= {"SLURM_SUBMIT_DIR": ROOT, "JAX_PLATFORMS": "cpu"} if script == "slurm.sh" else {}
    flags = [f"--config.{name}={value}" for name, value in ONE_STEP.items()]
    done = run(script, f"--workdir={tmp_path / 'a run'}", *flags, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    log = [json.loads(line) for line in (tmp_path / "a run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [0, 1] and "1 cpu device" in done.stdout
    assert run(script, "--num_processes=2", cwd=tmp_path, env=env).returncode == 2


def test_pod_runs_the_same_on_every_host(environ, tmp_path):
    """The command comes through gcloud's one string, the remote shell and the script as it was given."""
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$DOTS_DATA" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    gcloud = 'printf "%s\\n" "${@:1:$#-1}" >"$SAID"; exec bash -c "${!##--command=}"'
    env = environ | stand_in(tmp_path / "bin", "gcloud", gcloud) | {"SAID": str(tmp_path / "said")}
    env |= {"TPU": "t", "ZONE": "z", "CHECKOUT": ROOT, "DOTS_DATA": "/a b", "PYTHON": str(tmp_path / "python")}
    args = ["--workdir=/x y/$HOME", "--config.name='q\""]
    done = run("tpu_pod.sh", *args, env=env)
    assert done.stdout.splitlines() == ["/a b", "-m", "dots_jax.main", "--distributed", *args], done.stderr
    assert (tmp_path / "said").read_text().split()[3:] == ["ssh", "t", "--zone=z", "--worker=all"]
    del env["ZONE"]
    assert run("tpu_pod.sh", env=env).returncode != 0


def test_gke():
    yaml = pytest.importorskip("yaml")
    service, job = yaml.safe_load_all((LAUNCH / "gke.yaml").read_text())
    name, spec = job["metadata"]["name"], job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    env = {x["name"]: x.get("value", x.get("valueFrom")) for x in container["env"]}
    assert all(isinstance(x.get("value", ""), str) for x in container["env"])
    assert env["DOTS_COORDINATOR"].split(":")[0] == f"{name}-0.{pod['subdomain']}"
    assert pod["subdomain"] == service["metadata"]["name"] and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name} and spec["completionMode"] == "Indexed"
    assert int(env["DOTS_NUM_PROCESSES"]) == spec["completions"] == spec["parallelism"]
    assert "job-completion-index" in env["DOTS_PROCESS_ID"]["fieldRef"]["fieldPath"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_dockerfile():
    """It copies what there is, installs an extra that there is, and starts as gpu.sh does."""
    text = (LAUNCH / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (\S+) \S+$", text, re.M)
    assert all((Path(ROOT) / name).exists() for name in copied) and {"setup.py", "dots_jax", "configs"} < {*copied}
    (extra,) = re.findall(r"pip install .*'\.\[(\w+)\]'", text)
    assert f'"{extra}": [' in (Path(ROOT) / "setup.py").read_text()
    assert json.loads(text.split("ENTRYPOINT ")[1]) == ["python", "-m", "dots_jax.main"]
    flags, device = re.findall(r"(?:XLA_FLAGS|JAX_PLATFORMS)=(\S+)", text)[::-1]
    assert flags in (LAUNCH / "gpu.sh").read_text() and device == "cuda"


@pytest.mark.parametrize("script", sorted(path.name for path in LAUNCH.glob("*.sh")))
def test_shellcheck(script):
    beside = Path(sys.executable).with_name("shellcheck")
    program = shutil.which("shellcheck") or (beside.exists() and beside)
    if not program:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([program, LAUNCH / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert os.access(LAUNCH / script, os.X_OK)
