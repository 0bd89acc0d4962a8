import contextlib
import importlib.metadata
import os
import re
import signal
import sys
from pathlib import Path

# All of this before jax is imported. 8 devices on the host, for the tests of sharding; programs that run once compile
# quickly.
FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones end at a flag that they do not know
    FLAGS += ("--xla_cpu_use_fusion_emitters=false",)  # takes a quarter of the time
if re.search(r"(^| )-m ?(?!.*not gpu)[^-]*\bgpu\b", " ".join([os.environ.get("PYTEST_ADDOPTS", ""), *sys.argv[1:]])):
    os.environ.setdefault("DOTS_TEST_GPU", "gpu")  # for processes that pytest-xdist starts
if os.environ.get("DOTS_TEST_GPU", "cpu") == "cpu":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")  # programs keep nothing in the user's cache
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()

import jax
import numpy as np
import pytest

from dots_jax import policy
from dots_jax.policy import transformer

LONGEST = (
    "test_train.py",
    "test_distributed.py",
    "test_twins.py",
    "test_sampler.py",
    "test_learner.py",
    "test_replaying.py",
)


def pytest_collection_modifyitems(items):
    """The longest files first: workers take whole files, and one that comes late would run alone."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture
def backstop():
    """A context that raises TimeoutError after so many seconds of processor time, for what would else take hours."""

    def ring(*_):
        raise TimeoutError

    @contextlib.contextmanager
    def limit(seconds):
        before = signal.signal(signal.SIGPROF, ring)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    return limit


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """An environment for processes on one device, quick to compile; what one has compiled the next ones load."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # one directory for all workers
    return {
        "JAX_COMPILATION_CACHE_DIR": str(base / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "XLA_FLAGS": " ".join(FLAGS[1:]),
    }


@pytest.fixture(scope="session")
def data():
    """The directory of shared data."""
    if "DOTS_DATA" not in os.environ:
        pytest.skip("DOTS_DATA is not set")
    return Path(os.environ["DOTS_DATA"])


@pytest.fixture(scope="session")
def goldens(data):
    """The directory of golden numbers, beside the data."""
    path = data.parent / "goldens"
    if not path.is_dir():
        pytest.skip(f"no golden files in {path}")
    return path


@pytest.fixture(scope="session")
def tiny_config():
    """A policy of 16 width whose axes all divide by two; the last 3 vocabulary rows have no token."""
    return policy.ModelConfig(
        vocab_size=40,
        width=16,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        mlp_width=24,
        rope_theta=1e4,
        norm_eps=1e-6,
        tie_embeddings=False,
        max_positions=1024,
        num_tokens=37,
    )


@pytest.fixture(scope="session")
def tiny_params(tiny_config):
    """Random parameters without zeros, on the host."""
    rng = np.random.default_rng(0)
    leaves, treedef = jax.tree.flatten(transformer.declare(tiny_config))
    return treedef.unflatten([0.2 * rng.standard_normal(p.shape, np.float32) + (p.std is None) for p in leaves])
