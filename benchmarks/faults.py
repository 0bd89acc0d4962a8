"""What a hard day does to a run: kills, damaged files, full disks, two starts at once.

    python benchmarks/faults.py --kills=60 --out=faults.jsonl

Each case starts `python -m dots_jax.main` on a small run as a user would, and ends as one of:
  same      the run is continued to its end, and equals the uninterrupted one bit for bit
  one line  exit code 2 and a single line that starts with "error:"
  FAILED    anything else: a traceback, a hang, other numbers; the exit code is 1 where there is one
About ten seconds a case. Full disks are tmpfs mounts, which root alone can make; others get file size limits only.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[1]
STEPS, MORE = 12, 14  # of the run that is damaged, and of what it is continued to
FIELDS = {
    "train.batch_size": 8,
    "train.eval_every": 4,
    "train.checkpoint_every": 3,
    "eval.greedy": False,  # else the last step has an evaluation of its own
    "data.num_questions": 128,
    "data.num_heldout": 16,
    "selection.references": 4,
    "selection.reuse_references": 2,
    "replay.capacity": 8,
    "predictor.width": 8,
    "predictor.window": 64,
    "predictor.steps": 2,
    "predictor.batch": 16,
    "rollout.max_tokens": 21,
    "rollout.chunk": 20,
    "rollout.group_size": 4,
    "learner.minibatches": 2,
    "learner.micro_tokens": 64,
    "learner.learning_rate": 1e-3,
}
DAMAGE = ("missing", "empty", "cut", "zeroed", "flipped")
SAME, LINE = "same", "one line"


class Bench:
    """Starts runs in a scratch directory, and says how they end."""

    def __init__(self, scratch: pathlib.Path):
        self.scratch = scratch
        quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        self.env = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": quick,
            "JAX_COMPILATION_CACHE_DIR": str(scratch / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        self.reference, self.base = scratch / "reference", scratch / "base"
        for workdir, steps in ((self.reference, MORE), (self.base, STEPS)):
            _, err = self.start(workdir, steps).communicate()
            if not (workdir / "policy").is_dir():
                sys.exit(f"the run without faults does not work:\n{err}")

    def start(self, workdir: pathlib.Path, steps: int = MORE, limit: int = 0) -> subprocess.Popen:
        """A run; no file of it may be larger than `limit` bytes, 0: as large as it likes."""

        def lower():
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        fields = FIELDS | {"train.steps": steps, "embedding.cache": self.scratch / "embeddings"}
        command = [sys.executable, "-m", "dots_jax.main", f"--workdir={workdir}"]
        command += [f"--config.{name}={value}" for name, value in fields.items()]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=self.env, preexec_fn=lower, **pipes)

    def end(self, process: subprocess.Popen, workdir: pathlib.Path) -> str:
        """How a run ended, with what it said where it failed."""
        try:
            out, err = process.communicate(timeout=900)
        except subprocess.TimeoutExpired:
            process.kill()
            return f"FAILED: hangs: {process.communicate()[1][-300:]}"
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        if any(word in err + out for word in ("Traceback", "Exception ignored", "terminate called")):
            return f"FAILED: traceback: {err[-600:]}"
        if process.returncode == 0:
            return SAME if self.equals(workdir) else "FAILED: other numbers"
        if process.returncode == 2 and len(errors) == 1:
            return LINE
        return f"FAILED: exit code {process.returncode}: {err[-300:]}"

    def equals(self, workdir: pathlib.Path) -> bool:
        """Whether a run has left what the uninterrupted one has, but for seconds."""

        def rows(directory):
            lines = (directory / "metrics.jsonl").read_text().splitlines()
            return [{k: v for k, v in json.loads(line).items() if "seconds" not in k} for line in lines]

        files = ("groups.jsonl", "completions.jsonl", "predictor.safetensors", "policy/model.safetensors")
        same = all((workdir / f).read_bytes() == (self.reference / f).read_bytes() for f in files)
        return same and rows(workdir) == rows(self.reference) and not list(workdir.glob("**/*partial*"))

    def continued(self, prepare: Callable[[pathlib.Path], None]) -> str:
        """How the finished run is continued after `prepare(workdir)`."""
        workdir = self.scratch / "case"
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(self.base, workdir)
        prepare(workdir)
        return self.end(self.start(workdir), workdir)


def damage(path: pathlib.Path, how: str, chance: random.Random) -> None:
    """Damages one file."""
    data = bytearray(path.read_bytes())
    if how == "missing":
        return path.unlink()
    if how == "flipped" and data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    new = {"empty": b"", "cut": data[: len(data) // 2], "zeroed": bytes(len(data)), "flipped": data}[how]
    path.write_bytes(new)


def damaged_files(bench: Bench, chance: random.Random):
    """(what, case) for each kind of damage to each kind of file of a workdir."""
    newest, kinds = bench.base / "checkpoints" / str(STEPS), {}
    for file in sorted(newest.rglob("*")):
        if file.is_file():  # of arrays' files, which have random names, one
            name = str(file.relative_to(newest))
            kinds.setdefault(name if "/d/" not in name else str(pathlib.Path(name).parent / "*"), file)
    for name, file in kinds.items():
        for how in DAMAGE:
            path = file.relative_to(bench.base)
            yield f"newest checkpoint: {name} {how}", lambda w, p=path, h=how: damage(w / p, h, chance)
    for name in (
        "metrics.jsonl",
        "groups.jsonl",
        "completions.jsonl",
        "questions.jsonl",
        "config.json",
        "predictor.safetensors",
        "curves.png",
        "policy/config.json",
    ):
        for how in DAMAGE:
            yield f"{name} {how}", lambda w, n=name, h=how: damage(w / n, h, chance)
    for name in ("metrics.jsonl", "groups.jsonl", "completions.jsonl"):
        for lines in (1, 2, 5):
            yield f"{name}: last {lines} lines torn", lambda w, n=name, k=lines: tear(w / n, k)
    for name in ("checkpoints", "policy", "tensorboard"):
        yield f"{name}/ missing", lambda w, n=name: shutil.rmtree(w / n)

    def all_checkpoints(workdir):
        for file in workdir.glob("checkpoints/*/default/_METADATA"):
            damage(file, "zeroed", chance)

    yield "all checkpoints damaged", all_checkpoints
    yield "what an interrupted save leaves", lambda w: (w / "checkpoints" / "15.orbax-checkpoint-tmp").mkdir()
    yield "the lock of a killed run", lambda w: (w / "lock").write_text("process 1 on elsewhere\n")


def tear(path: pathlib.Path, lines: int) -> None:
    """Cuts a file within the last line but `lines` - 1."""
    data = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(data[:-lines]) + data[-lines][: len(data[-lines]) // 2])


def kills(bench: Bench, count: int, chance: random.Random):
    """(what, how it ended) of runs that are stopped at a random moment of their lives, and continued."""
    whole = bench.scratch / "timed"
    began = time.monotonic()
    bench.end(bench.start(whole), whole)
    lasts = time.monotonic() - began
    names = {signal.SIGKILL: "SIGKILL", signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
    for number in range(count):
        sent, workdir = chance.choice([signal.SIGKILL] * 3 + [signal.SIGTERM, signal.SIGINT]), bench.scratch / "case"
        shutil.rmtree(workdir, ignore_errors=True)
        process, moment = bench.start(workdir), chance.uniform(0.2, 1.0) * lasts
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(sent)
        _, err = process.communicate(timeout=900)
        if sent == signal.SIGINT and "Traceback" in err and moment > 0.3 * lasts:
            ended = f"FAILED: traceback after Ctrl-C: {err[-600:]}"
        else:
            ended = bench.end(bench.start(workdir), workdir)
        yield f"{names[sent]} {number + 1} at {moment / lasts:.2f} of the run", ended


def small_disks(bench: Bench):
    """(what, how it ended) of runs that meet a limit or a full disk: it must be one line, and then continue."""
    for limit in (2_000, 20_000, 200_000, 1_000_000):
        yield from _no_room(bench, f"files of at most {limit:,} bytes", bench.scratch / "case", limit)
    disk = bench.scratch / "disk"
    disk.mkdir(exist_ok=True)
    for size in ("100k", "1m", "3m", "5m", "6m", "7m", "8m", "10m"):
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
            print("no tmpfs here: full disks are left out", file=sys.stderr)
            return
        try:
            yield from _no_room(bench, f"a disk of {size}", disk / "run", 0, disk)
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def _no_room(bench, what, workdir, limit, disk=None):
    shutil.rmtree(workdir, ignore_errors=True)
    ended = bench.end(bench.start(workdir, limit=limit), workdir)
    yield what, ended
    if ended == LINE:
        if disk:
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        ended = bench.end(bench.start(workdir), workdir)
        yield f"{what}, then room", ended if ended == SAME else f"FAILED: not continued: {ended}"


def two_at_once(bench: Bench):
    """(what, how it ended) of a second start in a workdir, and of the first."""
    workdir = bench.scratch / "case"
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(bench.base, workdir)
    first = bench.start(workdir)
    while not (workdir / "lock").exists() and first.poll() is None:
        time.sleep(0.05)
    second = bench.end(bench.start(workdir), workdir)
    yield "the second of two starts", second if second == LINE else f"FAILED: {second}"
    yield "the first of two starts", bench.end(first, workdir)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="runs stopped at a random moment")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and flipped bits")
    parser.add_argument("--only", default="", help="only kinds whose name holds this, or such damaged files")
    parser.add_argument("--out", type=pathlib.Path, help="JSON lines of all cases")
    args = parser.parse_args()
    chance, table = random.Random(args.seed), collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(pathlib.Path(scratch))

        def cases():
            for what, prepare in damaged_files(bench, chance):
                if args.only in f"damaged files: {what}":
                    yield "damaged files", what, bench.continued(prepare)
            for kind, run in (
                ("kills", lambda: kills(bench, args.kills, chance)),
                ("no room", lambda: small_disks(bench)),
                ("two at once", lambda: two_at_once(bench)),
            ):
                if args.only in kind:
                    yield from ((kind, *case) for case in run())

        for kind, what, ended in cases():
            table[kind][ended.partition(":")[0]] += 1
            print(f"{kind}: {what}: {ended}", flush=True)
            if args.out:
                with args.out.open("a") as file:
                    file.write(json.dumps({"kind": kind, "what": what, "ended": ended}) + "\n")
    print("\n| | cases | same | one line | FAILED |\n| --- | --- | --- | --- | --- |")
    for kind, ends in table.items():
        print(f"| {kind} | {ends.total()} | " + " | ".join(str(ends[end]) for end in (SAME, LINE, "FAILED")) + " |")
    return int(any(ends["FAILED"] for ends in table.values()))


if __name__ == "__main__":
    sys.exit(main())
