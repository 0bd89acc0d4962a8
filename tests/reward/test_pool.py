"""The processes that grade: threads, hostile answers, deadlines, crashes."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from grading import asked, verdicts

from dots_jax import reward
from dots_jax.core.errors import UserError
from dots_jax.reward import Verdict, mathematics


def test_wait_twice_and_from_threads(pool):
    """Every thread gets the verdicts of its own pairs, each time it asks."""
    results = {}

    def work(k):
        wait = pool.submit(
            [rf"\boxed{{{k}x + {j}}}" for j in range(8)], asked(f"{j} + {k}x" if j % 2 else "x" for j in range(8))
        )
        results[k] = [wait()[1].tolist(), wait()[1].tolist()]

    threads = [threading.Thread(target=work, args=[k]) for k in range(2, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {k: [[1, 0] * 4] * 2 for k in range(2, 6)}


HOSTILE = {
    "power tower": "5^{5^{5^{5}}}",
    "factorials": "9!!!!!",
    "braces": "{" * 10_000 + "}" * 10_000,
    "nested": r"\sqrt{" * 60 + "2" + "}" * 60,
    "parentheses": "(" * 40 + "x" + ")" * 40,
    "a megabyte": "x+" * 500_000 + "1",
    "null bytes": "\0\0x\0",
    "surrogates": "\ud800 \udfff x",
    "python": "__import__('os').system('touch {path}')",
    "python in a formula": r"$x + __import__('os').system('touch {path}')$",
    "line breaks": "x\n1\n\r\n0\n",
    "unicode": "𝔵² ≠ ½ ٣ 🙂",
    "digits": "7" * 4000 + "x",
    "sum": r"\sum_{n=1}^{10^{12}} \frac{n!}{n^n}",
    "exponent": "1e999999999",
    "sums": r"\sum_{a=1}^{3000} \sum_{b=1}^{3000} \sum_{c=1}^{3000} \sqrt{abc}",
    "product of powers": r"\prod_{n=1}^{3000} n^{n^{n}}",
    "digits of digits": "9" * 3000 + "^{" + "9" * 900 + "}",
    "minus signs": "-" * 3900 + "1",
    "a matrix to the": r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^{10^9}",
    "list": "1," * 1900 + "1",
    "bars": "|" * 3000,
    "roots": r"\sqrt[10^9]{2^{10^9}}",
    "binomial": r"\binom{10^{12}}{5 \cdot 10^{11}}",
    "regular expression": r"\text{" * 700,
    "units": r"5 " + r"\text{m}/" * 400,
    "fractions": r"\frac{" * 300 + "1" + "}{2}" * 300,
    "spaces": "5" + " " * 3900 + "x",
}


def test_hostile(tmp_path):
    """Each ends in time, executes nothing, earns nothing, and leaves the verdicts on the others alone."""
    pool = mathematics.Pool(2, seconds=2.5)
    path = tmp_path / "executed"
    hostile = [rf"\boxed{{{text.replace('{path}', str(path))}}}" for text in HOSTILE.values()]
    hostile += [r"\boxed{" * 1000, "", "\0", "\ud800"]
    ordinary = [
        (rf"\boxed{{{k}\sqrt{{2}}}}", rf"\sqrt{{2}} \cdot {k if k % 3 else k + 1}", bool(k % 3)) for k in range(40)
    ]
    mixed = [(h, "x+1", None) for h in hostile] + ordinary
    random.Random(0).shuffle(mixed)
    got = verdicts(pool, [c for c, _, _ in mixed], [a for _, a, _ in mixed])
    workers = set(pool.state.processes)
    pool.close()
    for (completion, _, correct), verdict in zip(mixed, got, strict=True):
        if correct is None:
            assert verdict != Verdict.CORRECT, completion[:100]
        else:
            assert verdict == (Verdict.CORRECT if correct else Verdict.WRONG), (completion, verdict)
    assert Verdict.TIMEOUT in got
    assert not path.exists()
    assert all(w.poll() is not None for w in workers)


FAKE = """
import itertools, os, signal, sys, time
{broken}
def equal(answer, gold):
    start = time.process_time()
    if "print" in answer:
        print("1\\n0\\n", flush=True)
        os.write(1, b"0\\n0\\n0\\n")
    if "sleep" in answer:
        time.sleep(3600)
    if "work" in answer:
        while time.process_time() < start + 0.4:
            pass
    if "endless" in answer:
        sum(itertools.repeat(0))
    if "die" in answer:
        os.kill(os.getpid(), signal.SIGKILL)
    if "memory" in answer:
        bytearray(1 << 40)
    if "recursion" in answer:
        (f := lambda: f())()
    if "modules" in answer:
        return "jax" not in sys.modules
    return answer == gold
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A stand-in for the comparison that does what an answer says."""

    def install(broken=""):
        (tmp_path / "fake_equality.py").write_text(FAKE.replace("{broken}", broken))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
        monkeypatch.setattr(mathematics, "EQUALITY", "fake_equality")

    return install


@contextlib.contextmanager
def burners():
    """Two processes per core that do nothing but compute."""
    count = 2 * mathematics._cores()
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_processes_that_misbehave(fake, monkeypatch):
    """Only the guilty answer suffers."""
    fake()
    monkeypatch.setattr(mathematics, "PATIENCE", 4)
    graded = []
    monkeypatch.setattr(
        mathematics, "_ask", lambda s, p, pair, ask=mathematics._ask: graded.append(pair) or ask(s, p, pair)
    )
    pool = mathematics.Pool(1, seconds=1.5)
    expected = {
        "sleep": Verdict.TIMEOUT,
        "die": Verdict.CRASHED,
        "memory": Verdict.CRASHED,
        "recursion": Verdict.WRONG,
        "print": Verdict.WRONG,
        "modules": Verdict.CORRECT,  # that is: no jax among the worker's modules
    }
    completions, wanted = [], []
    for k, (text, verdict) in enumerate(expected.items()):
        completions += [rf"\boxed{{{text}}}", rf"\boxed{{a{k} b}}", r"\boxed{a b}"]
        wanted += [verdict, Verdict.WRONG, Verdict.WRONG]
    assert verdicts(pool, completions, ["y"] * len(completions)) == wanted
    assert verdicts(pool, [r"\boxed{sleep}"] * 5, ["y"] * 5) == [Verdict.TIMEOUT] * 5
    assert graded.count(("sleep", "y")) == 1
    for process in list(pool.state.processes):  # dies while idle
        process.kill()
        process.wait()
    assert verdicts(pool, [r"\boxed{c d}"], ["y"]) == [Verdict.WRONG]
    pool.close()


def test_deadline_is_processor_time(fake, monkeypatch):
    """A busy machine turns no verdict into a timeout; a loop in C that never ends is one all the same."""
    fake()
    monkeypatch.setattr(mathematics, "PATIENCE", 1e6)  # no other deadline
    pool = mathematics.Pool(2, seconds=2.0)
    verdicts(pool, [r"\boxed{a}", r"\boxed{b}"], ["y"] * 2)  # both have started
    answers = ["work", "x", "work and work", "endless"]
    expected = [Verdict.WRONG, Verdict.WRONG, Verdict.WRONG, Verdict.TIMEOUT]
    with burners():
        assert verdicts(pool, [rf"\boxed{{{a}}}" for a in answers], ["y"] * 4) == expected
    pool.close()


def test_does_not_start(fake):
    fake("raise ImportError('no antlr here')")
    pool = mathematics.Pool(2)
    wait = pool.submit([rf"\boxed{{x + {k}}}" for k in range(9)], asked("y" * 9))
    with pytest.raises(UserError, match=r"no antlr here.*pip install -U mpmath"):
        wait()
    with pytest.raises(UserError, match="no antlr here"):
        pool.submit([r"\boxed{z}"], asked("y"))


def test_close(fake):
    """Submitting returns at once; closing ends processes and threads, and nobody waits on."""
    fake()
    pool = mathematics.Pool(1, seconds=60)
    wait = pool.submit([r"\boxed{sleep}", r"\boxed{x}"], asked("yy"))
    assert len(pool.state.awaited) == 2
    threading.Timer(0.5, pool.close).start()
    with pytest.raises(UserError, match="closed"):
        wait()
    pool.threads[0].join(30)
    assert not pool.threads[0].is_alive() and not pool.state.processes
    with pytest.raises(UserError, match="closed"):
        pool.submit([r"\boxed{x}"], asked("y"))
    pool.close()


def test_collected(fake):
    """A pool that nobody refers to leaves no process behind."""
    fake()
    pool = mathematics.Pool(1)
    verdicts(pool, [r"\boxed{x}"], ["y"])
    (process,), threads = pool.state.processes, pool.threads
    del pool
    threads[0].join(30)
    assert process.poll() is not None


def test_worker_is_replaced_in_time(fake):
    """After 5,000 answers, and not because the process that starts it is large."""
    fake()
    large = "import subprocess, sys; bytearray(2 << 30); sys.exit(subprocess.call(sys.argv[1:]))"
    worker = subprocess.Popen(
        [sys.executable, "-c", large, sys.executable, "-m", "dots_jax.reward.worker", "5", "fake_equality"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(Path(reward.__file__).parents[2])])},
    )
    lines = worker.communicate(b'["x", "x"]\n' * 5000)[0].decode().splitlines()
    assert lines == ["ready", *["1"] * 4999, "1 last"]
    assert worker.returncode == 0  # it ends when stdin does


def test_killed_parent_leaves_no_worker():
    code = """
import time
from dots_jax.reward import Question, mathematics
pool = mathematics.Pool(1)
pool.submit([r"\\boxed{x+1}"], [Question("", "y")])()
print(*(p.pid for p in pool.state.processes), flush=True)
time.sleep(60)
"""
    env = os.environ | {"PYTHONPATH": str(Path(reward.__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env)
    pid = int(parent.stdout.readline())
    os.kill(pid, signal.SIGINT)  # as Ctrl-C does: left to the parent
    time.sleep(0.2)
    os.kill(pid, 0)
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not alive(pid):
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
