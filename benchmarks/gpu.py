"""The check of one GPU: what is right, how fast it is and what the compiler made of it, in at most 570 seconds.

python benchmarks/gpu.py --out=DIR       # JSON lines into DIR/gpu.jsonl, each as soon as it is known
python benchmarks/gpu.py --out=DIR --table      # those lines as the Markdown table of benchmarks/README.md
"""

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import common
from dots_jax.core.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = {  # in order, with seconds at most, the start of a process included
    "device": 20,
    "correctness": 60,
    "attention": 60,
    "head": 30,
    "micro": 60,
    "update": 140,
    "sampler": 150,
    "score": 20,
    "main": 200,
}
TOTAL = 570  # seconds for all of them
DEVICE = ("device", "backend", "jax")
STAMP = ("date", "commit", "command", *DEVICE)
WORDLESS = (0, 3)  # exit codes of a section that wrote its lines itself; 3: there are errors among them

# Before jax is imported, so for the processes of the sections; what the environment says already stays.
DEFAULTS = {
    "XLA_CLIENT_MEM_FRACTION": ".92",
    "JAX_COMPILATION_CACHE_DIR": os.path.join(tempfile.gettempdir(), "dots_jax_compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
SMALL = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
}


def drive(
    sections: dict[str, float], command: Callable[[str], list[str]], file: str, stamp: dict, env=None, total=TOTAL
) -> int:
    """Runs every section in a process of its own, which is killed with all its children at the deadline.

    Args:
      sections: name -> seconds at most.
      command: of a section's process, which writes its lines into `file` itself.
      file: gets a line for each section that ends, however it does.
      stamp: fields of those lines.
      env: of the processes.
      total: seconds for all sections.

    Returns:
      How many sections failed.
    """
    end, failed = time.monotonic() + total, 0
    before = os.path.getsize(file) if os.path.exists(file) else 0
    for name, limit in sections.items():
        start = time.monotonic()
        limit = min(limit, end - start)
        error = _run(command(name), limit, env) if limit >= 1 else f"the {total} s for all sections are over"
        failed += error is not None
        record = {"section": name, "status": "failed" if error else "done"}
        record["seconds"] = round(time.monotonic() - start, 1)
        common.emit(record | ({"error": error} if error else {}) | stamp | _device(file, before), file)
    return failed


def _device(file: str, before: int) -> dict:
    """What the lines from byte `before` on say of the device: this process must not touch it."""
    with open(file, "a+") as f:
        f.seek(before)
        lines = [json.loads(line) for line in f]
    unknown = dict.fromkeys(DEVICE, "unknown")
    return next(({k: x[k] for k in DEVICE} for x in lines if x.get("device", "unknown") != "unknown"), unknown)


def _run(command: list[str], limit: float, env) -> str | None:
    """Runs a process for at most `limit` seconds; returns what went wrong."""
    # A group of its own, to be killed as one, but the same session: who kills that leaves nothing on the GPU.
    process = subprocess.Popen(command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, process_group=0)
    try:
        code = process.wait(limit)
        if code in WORDLESS:
            return "see its lines" if code else None
        return f"the process ended with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
    except subprocess.TimeoutExpired:
        return f"not done after {limit:.0f} s"
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)  # it lets go of the GPU's memory
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            print(f"process {process.pid} cannot be killed", file=sys.stderr)


def commit() -> str:
    """The checkout's commit, with a + where files differ from it; "unknown" without git."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + "+" * bool(changed.stdout.strip())


# Not in the table: what is the same in all lines, and what the command says.
_HIDDEN = {"section", "what", "status", "ok", *STAMP, "benchmark", "stage", "devices", "mesh", "load", "model"}
_HIDDEN |= {"parameters", "dtype", "questions", "group", "prompt", "max_tokens", "lengths", "sigma", "temperature"}
_HIDDEN |= {"repeats", "chunk", "logits_chunk", "minibatches", "peak_source", "bandwidth_source"}


def table(lines: list[dict]) -> str:
    """Markdown: a row for every line and every failed section, numbers with their spread where they have one."""

    def number(x):
        return f"{x:,}" if isinstance(x, int | float) and abs(x) >= 10_000 else str(x)

    def show(x):
        if not isinstance(x, dict):
            return number(x)
        if set(x) != {"median", "min", "max"}:
            return ", ".join(f"{name} {number(count)}" for name, count in x.items())
        few = {name: number(value) for name, value in x.items()}
        return few["median"] if x["min"] == x["max"] else "{median} ({min} to {max})".format(**few)

    rows, where = ["| section | what | figures |", "| --- | --- | --- |"], {}
    for line in lines:
        if "what" in line or line["status"] == "failed":
            figures = "; ".join(f"{k} {show(v)}" for k, v in line.items() if k not in _HIDDEN and v not in (None, {}))
            rows.append(f"| {line['section']} | {line.get('what', 'in all')} | {figures.replace('|', '/')} |")
            where[", ".join(f"{name} {line[name]}" for name in STAMP)] = None
    return "\n".join([*rows, "", *where])


def main(argv=None) -> int:
    """Runs the sections, or prints the table; returns the exit code, 1 where a section failed."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default="runs/gpu", metavar="DIR", help="where gpu.jsonl is written (default: %(default)s)")
    p.add_argument("--sections", default=",".join(SECTIONS), help="with commas between (default: all)")
    p.add_argument("--seconds", type=float, default=TOTAL, help="for all sections: the last ones get what is left")
    p.add_argument("--small", action="store_true", help="tiny shapes, on a CPU: shows that the script works, no more")
    p.add_argument("--commit", help="what the lines name (default: git's)")
    p.add_argument("--table", action="store_true", help="print the lines in DIR as Markdown, and run nothing")
    args = p.parse_args(argv)
    names = args.sections.split(",")
    if wrong := [name for name in names if name not in SECTIONS]:
        raise UserError(f"--sections names {wrong[0]!r}; there are {', '.join(SECTIONS)}")
    file = os.path.join(args.out, "gpu.jsonl")
    if args.table:
        with open(file) as f:
            print(table([json.loads(line) for line in f]))
        return 0
    os.makedirs(args.out, exist_ok=True)
    stamp = {
        "date": datetime.date.today().isoformat(),
        "commit": args.commit or commit(),
        "command": " ".join(["python", "benchmarks/gpu.py", *(sys.argv[1:] if argv is None else argv)]),
    }
    env = DEFAULTS | (SMALL if args.small else {}) | os.environ
    script = str(Path(__file__).with_name("gpu_sections.py"))

    def command(name):
        return [sys.executable, script, name, os.path.abspath(args.out), json.dumps(stamp), str(int(args.small))]

    more = 10 if args.small else 1  # a busy CPU is no fault
    limits = {name: more * SECTIONS[name] for name in names}
    return int(drive(limits, command, file, stamp, env, more * args.seconds) > 0)


if __name__ == "__main__":
    common.finish(lambda: sys.exit(main()))
