import os
import subprocess
import sys

import jax
import pytest

from dots_jax.core import runtime
from dots_jax.core.files import ROOT

PROGRAM = """
import sys
from dots_jax.core import runtime
runtime.start(sys.argv[1] if sys.argv[1:] else None)
import jax, jax.numpy as jnp
print(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.arange(64.0).reshape(8, 8)).sum(), runtime.compilation_cache())
"""


def run(home, *args, **environ):
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    env |= {"PYTHONPATH": ROOT, "XDG_CACHE_HOME": str(home), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run([sys.executable, "-c", PROGRAM, *args], env=env | environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_programs_are_kept_and_damaged_entries_made_anew(tmp_path):
    first = run(tmp_path)
    (directory,) = (tmp_path / "dots_jax" / "compiled").iterdir()
    assert first.stdout.split()[1] == str(directory) and not first.stderr
    entries = {path: path.read_bytes() for path in directory.glob("*-cache")}
    assert len(entries) > 1
    for path, content in entries.items():
        path.write_bytes(content[: len(content) // 2])
    second = run(tmp_path)
    assert second.stdout == first.stdout
    assert second.stderr.startswith(f"warning: compilation cache {directory}: ") and second.stderr.count("\n") == 1
    assert all(len(path.read_bytes()) > len(content) / 2 for path, content in entries.items())
    third = run(tmp_path)
    assert third.stdout == first.stdout and not third.stderr


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    done = run(tmp_path, str(tmp_path / "file" / "below"))
    assert done.stderr.startswith("warning: compilation cache ") and done.stderr.count("\n") == 1
    assert done.stdout.split()[0] == run(tmp_path, "off").stdout.split()[0]
    assert os.listdir(tmp_path) == ["file"]


@pytest.fixture
def environ(monkeypatch):
    """Without the variables of this module; what it sets is taken back."""
    names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs", "default_matmul_precision")
    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    for name in (runtime._CACHE_VARIABLE, runtime._SECONDS_VARIABLE, "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(runtime.MEMORY_VARIABLE, "")
    monkeypatch.delenv(runtime.MEMORY_VARIABLE)  # restored afterwards, also where it was not set
    monkeypatch.setattr(runtime, "_report_in_one_line", lambda: None)
    yield monkeypatch
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize(
    "variable, flag, kept",
    [
        (None, "/flag", "/flag"),
        (None, "off", None),
        ("/variable", "/flag", "/variable"),
        ("/variable", "off", "/variable"),
        ("", "/flag", None),
    ],
)
def test_what_goes_first(environ, variable, flag, kept):
    if variable is not None:
        environ.setenv(runtime._CACHE_VARIABLE, variable)
    runtime.start(flag)
    assert runtime.compilation_cache() == kept


@pytest.mark.parametrize("variable, flag", [(None, None), (None, "/flag"), ("/variable", None)])
def test_several_processes_need_a_named_directory(environ, variable, flag):
    if variable is not None:
        environ.setenv(runtime._CACHE_VARIABLE, variable)
    runtime.start(flag)
    assert runtime.compilation_cache()
    runtime.start_several(flag)
    assert runtime.compilation_cache() == (variable or flag)


def test_the_users_memory_fraction_stays(environ):
    runtime.start("off")
    assert os.environ.pop(runtime.MEMORY_VARIABLE) == "0.92"
    environ.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".5")
    runtime.start("off")
    assert runtime.MEMORY_VARIABLE not in os.environ
    environ.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION")
    environ.setenv(runtime.MEMORY_VARIABLE, ".6")
    runtime.start("off")
    assert os.environ[runtime.MEMORY_VARIABLE] == ".6"


@pytest.mark.parametrize(
    "backend, dtype, precision",
    [("cpu", "float32", None), ("gpu", "bfloat16", None), ("gpu", "float32", "highest"), ("tpu", "float32", "highest")],
)
def test_full_precision(environ, backend, dtype, precision):
    environ.setattr(jax, "default_backend", lambda: backend)
    runtime.full_precision(dtype)
    assert jax.config.jax_default_matmul_precision == precision


def test_full_precision_where_it_will_run(environ):
    runtime.full_precision("float32", "cpu")
    assert jax.config.jax_default_matmul_precision is None
    runtime.full_precision("float32", "tpu")
    assert jax.config.jax_default_matmul_precision == "highest"
