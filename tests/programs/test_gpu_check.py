"""`benchmarks/gpu.py` on a CPU: every section writes its lines, without the packages that a bare machine lacks."""

import dataclasses
import fcntl
import json
import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from benchmarks import common, decode_attention, gpu, gpu_sections, update
from dots_jax.core import sharding
from dots_jax.core.errors import UserError
from dots_jax.policy import attention

LACKING = ["ml_collections", "tensorboardX", "datasets", "mpmath", "transformers", "matplotlib", "pyarrow", "tqdm"]


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Runs `gpu.py --small`; returns its lines."""
    compiled = str(tmp_path_factory.mktemp("compiled"))

    def check(folder, *flags, **more):
        env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        env |= {"JAX_COMPILATION_CACHE_DIR": compiled} | more
        command = [sys.executable, "benchmarks/gpu.py", "--small", f"--out={folder}", *flags]
        done = subprocess.run(command, cwd=gpu.ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
        lines = [json.loads(line) for line in (folder / "gpu.jsonl").read_text().splitlines()]
        assert [json.loads(line) for line in done.stdout.splitlines()] == lines
        return lines

    return check


def by_section(lines):
    return {name: [x for x in lines if x["section"] == name and "what" in x] for name in gpu.SECTIONS}


@pytest.mark.slow
def test_all_sections_without_what_is_not_needed(check, tmp_path):
    """All but the main job, which says what it lacks."""
    block = f"import sys\nsys.modules.update(dict.fromkeys({LACKING}))\n"
    (tmp_path / "sitecustomize.py").write_text(block)
    lines = check(tmp_path, "--commit=abc", PYTHONPATH=str(tmp_path))
    assert [x["section"] for x in lines if "status" in x] == list(gpu.SECTIONS) == list(gpu_sections.SECTIONS)
    for line in lines:
        assert "error" not in line and line.get("ok", True) and line.get("status", "done") == "done", line
        assert set(gpu.STAMP) <= set(line) and line["device"] == "cpu" and line["commit"] == "abc", line
    found = by_section(lines)
    assert found["main"][0]["skipped"] == "needs ml-collections, transformers, tensorboardX, matplotlib"
    assert found["micro"][0]["planned"] == "needs ml-collections" and (tmp_path / "update.hlo.gz").exists()
    assert {x["what"] for x in found["attention"]} == set(decode_attention.BODIES)
    for name in ("update", "sampler"):
        assert [x["what"] for x in found[name]] == ["ragged"]
    assert 0 < found["sampler"][0]["alive_share"]["median"] <= 1 and found["sampler"][0]["decode_steps"]["median"] <= 12
    assert [x["rows"] for x in found["correctness"][:2]] == ["first", "refilled"]
    table = gpu.table(lines)
    assert all(f"| {name} |" in table for name in gpu.SECTIONS) and "commit abc" in table


@pytest.mark.slow
def test_the_main_job(check, tmp_path):
    """Killed once and continued, `ok` says that no step is lacking."""
    (line,) = by_section(check(tmp_path, "--sections=main"))["main"]
    assert line["ok"] and line["steps"] == 8 and set(line["accuracy"]) == {"before", "after"}


def test_the_plan_of_an_update():
    """Four times the tokens of a micro-batch are nearly four times the activations."""
    sizes = {}
    for micro_tokens in (2048, 8192):
        args = update.parse([*gpu_sections.BATCH, "--questions=4", "--minibatches=1", f"--micro-tokens={micro_tokens}"])
        planned = gpu_sections._planned(args, common.SHAPES["1.5b"], update.hyper_of(args))
        sizes[micro_tokens] = planned["planned_bytes"] - 6 * common.count(common.SHAPES["1.5b"])  # without gradients
    assert 1.5 < sizes[8192] / sizes[2048] < 4


def test_deadlines_and_crashes(tmp_path, capsys):
    """What hangs is killed with its children, what crashes is named, and the next one goes on."""
    file = tmp_path / "gpu.jsonl"
    lock = tmp_path / "lock"
    child = f"import fcntl, time; f = open({str(lock)!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); time.sleep(600)"
    programs = {
        "hangs": f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])",
        "crashes": "import os; os.abort()",
        "is wrong": "import sys; sys.exit(3)",
        "is right": f'open({str(file)!r}, \'a\').write(\'{{"device": "toy", "backend": "b", "jax": "j"}}\\n\')',
    }
    limits = {"hangs": 5, "crashes": 60, "is wrong": 60, "is right": 60}
    failed = gpu.drive(limits, lambda name: [sys.executable, "-c", programs[name]], str(file), {"date": "today"})
    assert failed == 3
    lines = [x for x in map(json.loads, file.read_text().splitlines()) if "section" in x]
    assert [x["section"] for x in lines] == list(limits) and [x["status"] for x in lines] == ["failed"] * 3 + ["done"]
    assert "not done after 5 s" in lines[0]["error"] and "SIGABRT" in lines[1]["error"]
    assert [x["device"] for x in lines] == ["unknown"] * 3 + ["toy"] and {x["date"] for x in lines} == {"today"}
    with lock.open() as f:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)  # would raise while the child of what hung lives
    assert gpu.drive({"late": 60}, lambda name: ["false"], str(file), {}, total=0) == 1
    assert "are over" in json.loads(capsys.readouterr().out.splitlines()[-1])["error"]


def test_checks_see_what_is_wrong(monkeypatch):
    """Attention in bfloat16 that is off by a tenth; cached decoding that forgets the newest key, in both caches."""
    causal, decode, fused = attention.causal, attention.decode, attention.decode_fused
    monkeypatch.setattr(
        attention, "causal", lambda q, k, v: causal(q, k, v) * (1.1 if q.dtype == jnp.bfloat16 else 1.0)
    )
    assert not gpu_sections.check_attention(9, rows=1, heads=2, kv_heads=1, width=8)["ok"]
    monkeypatch.undo()
    monkeypatch.setattr(attention, "decode", lambda *x: decode(*x[:-1], jnp.maximum(x[-1] - 1, 0)))
    monkeypatch.setattr(attention, "decode_fused", lambda *x: fused(*x[:-1], jnp.maximum(x[-1] - 1, 1)))
    # A shape that no other test compiles.
    config = dataclasses.replace(common.SHAPES["least"], mlp_width=32, head_dim=8)
    for platform in ("cpu", "gpu"):
        monkeypatch.setattr(sharding, "platform", lambda mesh, platform=platform: platform)
        assert not any(line["ok"] for line in gpu_sections.check_sampler(config, 2, 2, 8, 12, 11, 2))


@pytest.mark.parametrize("name", decode_attention.BODIES)
def test_decode_attention_in_bfloat16(name):
    x = decode_attention.inputs(4, (4, 5), 3, 4, 2, 8, 4, 0.25)
    found = decode_attention.check(decode_attention.BODIES[name], x, calls=1)
    assert found["ok"] and found["apart"] > 0 and 0 < found["useful_share"] < 1
    wrong = decode_attention.Body(lambda x: decode_attention.BODIES["pieces"].attend(x) * 1.1)
    assert not decode_attention.check(wrong, x, calls=1)["ok"]


def test_read_program_by_hand():
    program = """
  %p.1 = bf16[4,8]{1,0} parameter(0)
  %w = bf16[22,8]{1,0} parameter(1)
  %dot.3 = f32[4,22]{1,0} dot(%p.1, %w), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  %gemm = (f32[22,8]{1,0}, s8[64]{0}) custom-call(%dot.3, %p.1), custom_call_target="__cublas$gemm"
  %other = f32[4,4]{1,0} dot(%p.1, %p.1), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  %fmha = (bf16[4,8]{1,0}, u8[0]{0}) custom-call(%p.1, %p.1), custom_call_target="__cudnn$fmhaSoftmax"
  ROOT %copy.1 = f32[22,8]{0,1} copy(%w)
  %copy.2 = bf16[22,8]{0,1} copy(%w)
"""
    assert gpu_sections.read_program(program, {(22, 8), (3,)}, 22) == {
        "copies": 1,
        "copied_bytes": 22 * 8 * 4,
        "head_products": {"bf16 x bf16 -> f32": 1, "f32 x bf16 -> f32": 1},
        "calls": {"__cublas$gemm": 1, "__cudnn$fmhaSoftmax": 1},
    }


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(UserError, match="'warp'"):
        gpu.main(["--sections=device,warp", f"--out={tmp_path}"])
