"""dots_jax: data-efficient reinforcement fine-tuning of language models in JAX."""

import importlib.util
import os
import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # a program is being started
    from dots_jax.core.errors import quiet_interrupts

    quiet_interrupts()

# Before jax is imported. On many CPUs XLA logs an error, two pages long, for each program that it reads from the
# compilation cache, though nothing is wrong (issue 38445 of jax). Where accelerators may be its errors are shown.
if not (importlib.util.find_spec("jax_plugins") or importlib.util.find_spec("libtpu")):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
