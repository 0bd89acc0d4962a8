"""A run's programs: they are what it calls, every platform lowers them, and TPUs' compiler takes them if it is here."""

import importlib.util
import os

import jax
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from configs import common
from dots_jax import learner, main, plan, train
from dots_jax.core import command_line, sharding
from dots_jax.plan import compiled, program, programs
from dots_jax.policy import transformer
from dots_jax.rollout import sampler

MODEL = transformer.ModelConfig(1024, 256, 2, 4, 2, 512, 1e4, 1e-6, True, 1024, 1000)
ONE, FSDP, ALL = (1, 1, 1), (1, 8, 1), (2, 2, 2)


def small(dtype, sizes):
    """A run with all programs: embeddings, replay and its log-probs, the penalty's reference."""
    c = common.get_config()
    c.data.name, c.data.num_heldout, c.data.num_questions, c.data.max_prompt_tokens = "arithmetic", 8, 64, 40
    c.policy.dtype = c.embedding.dtype = dtype
    c.mesh.data, c.mesh.fsdp, c.mesh.tensor = sizes
    c.selection.references = 8
    c.rollout.max_tokens, c.rollout.chunk, c.rollout.slots = 33, 16, 16
    c.train.batch_size, c.replay.capacity = 16, 16
    c.learner.minibatches, c.learner.micro_tokens, c.learner.kl_coef = 2, 256, 0.1
    return c


def footprint(dtype, sizes, platform, memory=1e12):
    return plan.footprint(small(dtype, sizes), MODEL, int(np.prod(sizes)), memory, platform)


@pytest.mark.parametrize(
    "platform, dtype, sizes",
    [
        *(("gpu", "bfloat16", sizes) for sizes in (ONE, FSDP, ALL)),
        *(("gpu", "float32", sizes) for sizes in (ONE, ALL)),
        *(("tpu", "bfloat16", sizes) for sizes in (ONE, ALL)),
        *(("tpu", "float32", sizes) for sizes in (ONE, FSDP)),
    ],
)
def test_lowered_for(platform, dtype, sizes, monkeypatch):
    """No platform refuses a program; in 16 bits GPUs get cuDNN's attention and TPUs splash, and nothing else does."""
    held, mesh = footprint(dtype, sizes, platform), None
    is_fused = (platform, dtype) == ("gpu", "bfloat16")
    if is_fused:  # JAX wants devices for cuDNN: those of the host, which then stand for GPUs
        mesh = sharding.make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(sharding, "platform", lambda mesh: "gpu")
        monkeypatch.setattr(sharding, "current_platform", lambda: "gpu", raising=False)
        monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91100)
    texts = {}
    for name, one in programs.programs(held, mesh).items():
        texts[name] = one.lower(lowering_platforms=("cuda" if platform == "gpu" else platform,)).as_text()
    assert {name.split()[0] for name in texts} == {"embed", "weights", "prefill", "admit", "decode", "update"}
    for name in ("embed", "prefill 128", "update"):
        # On several devices a partitioner that is called later puts it in, but where each computes its own rows alone.
        is_in = sizes == ONE or (name == "update" and sizes[2] == 1)
        assert (("__cudnn$fmha" if is_in else "CustomSPMDPartitioning") in texts[name]) == is_fused, name
        assert ("tpu_custom_call" in texts[name]) == ((platform, dtype) == ("tpu", "bfloat16")), name


def test_they_are_what_a_run_calls(monkeypatch, tmp_path):
    """Shapes and places of a real run's calls on eight devices, where they are no static arguments."""
    fields = [
        "train.steps=1",
        "selection.name=uniform",
        "data.num_heldout=8",
        "data.num_questions=64",
        "eval.samples=1",
    ]
    fields += ["eval.greedy=False", "rollout.slots=8", "rollout.max_tokens=8", "learner.micro_tokens=64"]
    argv = [f"--config.{field}" for field in [*fields, "mesh.data=1", "mesh.fsdp=-1"]]
    config, workdir = command_line.parse([*argv, f"--workdir={tmp_path / 'run'}"], "configs/quickstart.py")
    held = plan.footprint(*program._known(config), 8, 1e12, "cpu")
    expected = programs.programs(held, sharding.make_mesh(**config.mesh))
    calls = {one.function: [] for one in expected.values()}

    def record(function):
        def call(*args):
            calls[function].append(arrays(args))
            return function(*args)

        return call

    for name in ("_decode_weights", "_prefill", "_admit", "_decode"):
        monkeypatch.setattr(sampler, name, record(getattr(sampler, name)))
    monkeypatch.setattr(learner, "update", record(learner.update))
    train.train(config, workdir)
    assert [name.split()[0] for name in expected] == ["weights", "prefill", "admit", "decode", "update"]
    for name, one in expected.items():
        assert calls[one.function], name
        for call in calls[one.function]:
            for actual, abstract in zip(call, arrays(one.args), strict=True):
                assert actual.dtype == abstract.dtype, name
                if actual.sharding:  # numbers of the host lie nowhere; the stop ids among them are as many as there are
                    assert actual.shape == abstract.shape, name
                    assert actual.sharding.is_equivalent_to(abstract.sharding, len(actual.shape)), name


def arrays(tree):
    """Shapes, types and places of what is no static argument."""
    kinds = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)
    leaves = [x for x in jax.tree.leaves(tree) if isinstance(x, kinds)]
    return [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None)) for x in leaves]


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ, reason="needs the extra [tpu]"
)
def test_compiled_for_tpus(capsys):
    """All programs, of two layers; on chips of next to no memory they do not fit."""
    devices, memory = compiled.devices("v5e:2x4")
    mesh = sharding.make_mesh(1, 8, 1, devices=devices)
    held = footprint("bfloat16", (1, 8, 1), sharding.platform(mesh), memory)
    assert held.platform == "tpu"
    assert compiled.check(held, mesh), capsys.readouterr().out
    assert capsys.readouterr().out.endswith("on devices of 15.8 GiB all fit\n")


@pytest.mark.parametrize(
    "flags, code, last",
    [
        ([], 3, "do not fit: bad"),
        (["--device_memory=0.001GB"], 3, "do not fit: good, bad"),
        (["--config.selection.name=uniform"], 0, "all fit"),
    ],
)
def test_table(flags, code, last, monkeypatch, capsys):
    """What XLA allocates for an array, and what is there beside it; what does not compile is a line."""
    numbers = jax.ShapeDtypeStruct((2**27,), "float32")
    found = {"good": programs.Program(jax.jit(jax.numpy.sin), (numbers,), ("decode",), ("optimizer",))}
    if code:
        found["bad"] = programs.Program(jax.jit(lambda x: x.reshape(3)), (numbers,), ("decode",), ())
    monkeypatch.setattr(compiled, "programs", lambda held, mesh: found)
    assert main.main(["--plan", "--compile=cpu:8", *flags]) == code
    head, *lines, end = capsys.readouterr().out.rpartition("\n\n")[2].splitlines()
    assert head.split()[3:] == list(compiled._COLUMNS) and end.endswith(last)
    assert lines[0].split()[:3] == ["good", "0.50", "0.50"]
    assert [line for line in lines[1:] if "not compiled: TypeError: cannot reshape" in line] == lines[1:]
