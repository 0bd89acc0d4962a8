import collections
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import grading_kinds
import numpy as np
import pyarrow.parquet as pq
import pytest

from dots_jax import data as questions
from dots_jax import reward
from dots_jax.core.errors import UserError
from dots_jax.data import real
from dots_jax.data.questions import Questions
from dots_jax.reward import Question, Verdict, boxes, equality, mathematics

# Pairs of the real data on which we differ from the recorded verdict.
DISAGREE = {
    5: "a decimal comma in a gold answer, 1,22: to us two values",
    6: "a sentence that breaks off: 2,74 $ a..",
    19: "a line break within \\( \\), which the source's pattern does not cross",
    36: "a completion of more than 4,000 characters without a box",
    82: "0.33 for 1/3 in a matrix: too coarse",
    106: "doubly escaped LaTeX, which we read",
    159: "a list in another order: to us a set of solutions",
}


@pytest.fixture(scope="module")
def pool():
    pool = mathematics.Pool(2)
    yield pool
    pool.close()


def asked(answers):
    return [Question("", answer) for answer in answers]


def verdicts(pool, completions, answers):
    rewards, verdicts = pool.submit(completions, asked(answers))()
    assert rewards.dtype == np.float32 and verdicts.dtype == np.int8 and rewards.shape == verdicts.shape
    np.testing.assert_array_equal(rewards, verdicts == Verdict.CORRECT)
    return [Verdict(v) for v in verdicts]


def boxed(text):
    """Content of the last box; None without one, and where the last one is not finished."""
    found, cut = boxes.find(text)
    return None if cut or not found else text[found[-1][1] : found[-1][2]]


def test_boxed():
    assert boxed(r"so \boxed{5}.") == "5"
    assert boxed(r"\boxed{1}, then \boxed{2}") == "2"
    assert boxed(r"\boxed{1 \boxed{7}") == "7"
    assert boxed(r"\boxed{x = \fbox{7}}") == "7"
    assert boxed(r"{\boxed{ {a}{b} }}") == " {a}{b} "
    assert boxed(r"\boxed{\{1, 2\}}") == r"\{1, 2\}"
    assert boxed(r"\boxed{\}") is None
    assert boxed(r"\boxed {5} } {") == "5"
    assert boxed(r"\\boxed{5}") == "5"
    assert boxed(r"\boxed 5") == "5"
    assert boxed(r"\boxed{5}, in \boxed{} as asked") == "5"
    for none in ("", "5", "boxed{5}", r"\boxed", r"\boxedx{5}", r"\boxed{", "{5}", r"a \boxed format"):
        assert boxed(none) is None
    for unfinished in (r"\boxed{\frac{1}{2}} and \boxed{3", r"\boxed{5} \boxed{", r"\boxed{5} or \boxed"):
        assert boxed(unfinished) is None


def test_boxed_random():
    """Against a slow reading, by pieces that can nest, end early or never."""
    rng = random.Random(0)
    pieces = [r"\boxed{", r"\fbox{", "{", "}", "}", r"\{", r"\}", "a", " ", r"\frac"]
    for _ in range(3000):
        text = "".join(rng.choices(pieces, k=rng.randrange(12)))
        last = (-1, None)
        for command in (r"\boxed{", r"\fbox{"):
            for start in (i for i in range(len(text)) if text.startswith(command, i)):
                depth, i = 1, start + len(command)
                while i < len(text) and depth:
                    escaped = text[i] == "\\"
                    depth += 0 if escaped else {"{": 1, "}": -1}.get(text[i], 0)
                    # An escaped brace is skipped; a command's own brace is not.
                    i += 2 if escaped and text[i + 1] in "{}" else 1
                content = None if depth else text[start + len(command) : i - 1]
                if depth or content.strip(" {}"):
                    last = max(last, (start, content), key=lambda found: found[0])
        assert boxed(text) == last[1], text


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 100_000,
        r"\boxed{5}" + r"\boxed{" * 100_000,
        r"\boxed" + " " * 1_000_000,
        r"\boxed{5}" + "\\" * 1_000_000,
        r"\boxed{" + "{" * 500_000 + "}" * 500_000 + "}",
        r"\boxed{5}, " * 50_000,
        r"\boxed{5}\text{" + " " * 1_000_000 + r"} \boxed{6}",
        "a" * 1_000_000 + r"\boxed{5}",
        "$" * 1_000_000,
    ],
    ids=range(9),
)
def test_boxed_is_linear(text, backstop):
    """A second at most; anything quadratic takes hours."""
    with backstop(60):
        boxes.final_answer(text)


FINAL = [
    (r"$\boxed{(2, 2)} \quad \text{and} \quad \boxed{(6, 2)}$", "(2, 2), (6, 2)"),
    (r"\boxed{1}, \boxed{2} or $\boxed{3}$.", "1, 2, 3"),
    (r"\boxed{1}, \boxed{1}", "1"),
    (r"\boxed{1} \boxed{2}", "2"),  # nothing joins them
    (r"First \boxed{1}, and then x = \boxed{2}, \boxed{3}", "2, 3"),
    (r"$x = \boxed{3}$ or $x = \boxed{4}$", "3, 4"),
    (r"either $\boxed{1}$ or $-\boxed{2}$", "1, -2"),
    (r"It is $\boxed{5}x^2$.", "5x^2"),
    (r"It is \boxed{\frac12}\pi.", r"\frac12\pi"),
    (r"\boxed{3}\sqrt{2} it is", r"3\sqrt{2}"),
    (r"so -\boxed{5}", "-5"),
    (r"$y = -\boxed{5}$", "-5"),
    (r"\boxed{5} \text{ cm}", r"5\text{ cm}"),
    (r"$\boxed{90}^\circ$", r"90^\circ"),
    (r"\boxed{5} apples a day", "5"),
    (r"$2 \cdot \boxed{6} = 12$", "6"),  # a blank filled in
    (r"$m + n = \boxed{5}$", "5"),
    (r"$129^{34} \equiv \boxed{9} \pmod{11}$", "9"),
    (r"The cost is $5 and \boxed{6} of them", "6"),
    (r"We get $x = 3$, so \boxed{9} is $x^2$.", "9"),
    (r"\boxed{5} is put into \boxed{}.", "5"),
    (r"$\boxed{x+1}^2$", "{(x+1)}^2"),
    (r"$\boxed{(1,2)}\cup(3,4)$", r"(1,2)\cup(3,4)"),
    (r"$\boxed{(1,2)} \cup \boxed{(3,4)}$", r"(1,2) \cup(3,4)"),
    (r"$-\boxed{(1,2)}$", "-(1,2)"),
    (r"$\boxed{5,6}\pi$", r"{(5,6)}\pi"),
    (r"$\boxed{5 \text{ cm}}^2$", r"{(5 \text{ cm})}^2"),
    (r"$(\boxed{3}, 4)$", "(3, 4)"),
    (r"$\{1, \boxed{3}\}$", r"\{1,3\}"),
    (r"$[\boxed{3},\infty)$", r"[3,\infty)"),
    (r"$1, \boxed{3}$", "1,3"),
    (r"$\boxed{3}, 4$", "3, 4"),
    (r"$x \ge \boxed{3}$", r"x \ge3"),
    (r"$x\ne\boxed{3}$", r"x\ne3"),
    (r"$f(1) = \boxed{3} > 2$", "3"),
    (r"$2 < \boxed{3}$", "3"),
    (r"$\boxed{5}, \text{as required}$", "5"),
    (r"$x=1, y=\boxed{2}$", "2"),
    (r"$\boxed{5}, n > 3$", "5"),
    (r"$3:\boxed{4}$", "3:4"),
    (r"$\boxed{5}!$", "5!"),
    (r"1/\boxed{4}", "1/4"),
    (r"2\boxed{5}", "2{(5)}"),
    (r"1. \boxed{5}", "5"),
    (r"(a)\boxed{5}", "5"),
    (r"\boxed{5} million", r"5\text{ million}"),
    (r"\boxed{5} × 10^3", "5× 10^3"),
    (r"\boxed{12}_8", "12_8"),
    (r"\sqrt{\boxed2}", r"\sqrt{2}"),
    (r"\vert\boxed{-5}\vert", r"\vert{(-5)}\vert"),
    (r"x = − \boxed{5}", "-5"),
    (r"$\boxed{50}$%", r"50\%"),
    (r"$\boxed{5}$ cm", r"5\text{ cm}"),
    (r"\boxed{5} in total", "5"),
    (r"\boxed{5} Remember to use \boxed{} and \boxed{your answer}", "5"),
    (r"\boxed $5$", "5"),
    (r"\framebox{5}", "5"),
    (r"$\boxed{3}$, and $\boxed{4}$ is the final answer", "4"),
    ("none", None),
    (r"first \boxed{5}, finally \boxed{7", None),
    (r"\boxed{ }", None),
]


@pytest.mark.parametrize(("completion", "expected"), FINAL)
def test_final_answer(completion, expected):
    """Wherever else an answer may stand: a box goes before, one that is cut off too."""
    assert boxes.final_answer(completion) == expected
    assert {reward.find_answer(completion, where) for where in ("box", "marked", "last")} == {expected}


SAME = [
    ("073", "73"),
    ("1,234", "1234"),
    ("1{,}234", "1234"),
    (r"1\,234", "1234"),
    (r"1,\!234", "1234"),
    (r"\$5", "5"),
    ("$5$.", "5"),
    ("5.0", "5"),
    ("-0", "0"),
    ("+7", "7"),
    (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    (r"\frac12", "1/2"),
    (r"\frac{-2}{4}", "-0.5"),
    (r"\left( 1, 2 \right)", "(1,2)"),
    ("0.333333", r"\frac{1}{3}"),
    (r"8.7 \times 10^{8}", "8.7e8"),
    (r"1.39 \cdot 10^{-10}", "1.39e-10"),
    ("870000000", "8.7e8"),
    (".5", "0.5"),
    (r"\text{ten cm}", r"\text{ten  cm}"),
]
DIFFERENT = [
    ("5", "6"),
    ("5", ".5"),
    ("-5", "5"),
    ("1/3", "0.33"),
    ("16386.20", "16386.17"),
    ("2e-10", "1.39e-10"),
    ("1000000", "1000001.0"),
    (r"\frac{1}{2}", r"\frac{1}{3}"),
    ("1/2", "2"),
    ("9" * 4000, "9" * 3999),
    ("0.1", "0"),
]
UNDECIDED = [
    ("1,234", "1"),
    ("x", "y"),
    ("1/0", "1"),
    ("", "1"),
    (r"\pi r", r"\pir"),
    ("5 5", "55"),
    ("٣", "3"),
]


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [(*p, True) for p in SAME] + [(*p, False) for p in DIFFERENT] + [(*p, None) for p in UNDECIDED],
)
def test_quick(answer, gold, expected):
    assert mathematics.quick(answer, gold) is expected
    assert mathematics.quick(gold, answer) is expected


def test_quick_on_random_numbers():
    """However two numbers are written, arithmetic decides."""
    rng = random.Random(0)

    def write(x):
        forms = [rf"\frac{{{x.numerator}}}{{{x.denominator}}}", f"{2 * x.numerator}/{2 * x.denominator}"]
        forms += [f"{x.numerator}", f"{x.numerator:,}", f"{x.numerator}.00"] if x.denominator == 1 else []
        forms += [str(float(x)), rf"{float(x * 1000)}\times 10^{{-3}}"] if 1000 % x.denominator == 0 else []
        return rng.choice(forms)

    values = [Fraction(rng.randrange(-3000, 3000), rng.choice([1, 1, 3, 8, 10, 7])) for _ in range(60)]
    for a in values:
        for b in values:
            assert mathematics.quick(write(a), write(b)) in ((True,) if a == b else (False, None))


CASES = [
    (r"\boxed{\frac{\sqrt{2}}{2}}", r"\frac{1}{\sqrt{2}}", Verdict.CORRECT),
    (r"\boxed{(x+1)^2}", "x^2+2x+1", Verdict.CORRECT),
    (r"\boxed{x^2+2x+2}", "(x+1)^2", Verdict.WRONG),
    (r"\boxed{-2, 5}", "5,-2", Verdict.CORRECT),
    (r"\boxed{5} and \boxed{-2}", "5,-2", Verdict.CORRECT),
    (r"\boxed{5}", "5,-2", Verdict.WRONG),
    (r"\boxed{x = 3}", "3", Verdict.CORRECT),
    (r"\boxed{5 \text{ cm}}", "5", Verdict.CORRECT),
    (r"\boxed{10\%}", "10", Verdict.CORRECT),
    (r"\boxed{12.6}", r"12\frac{3}{5}", Verdict.CORRECT),
    (r"\boxed{\arcsin\frac{10}{13}}", "np.arcsin(10/13)", Verdict.CORRECT),
    (r"\boxed{\arccos\frac{10}{13}}", "np.arcsin(10/13)", Verdict.WRONG),
    (r"\boxed{E}", r"\text{(E)}", Verdict.CORRECT),
    (r"\boxed{[0, 1)}", "(0,1)", Verdict.WRONG),
    (r"\boxed{\frac{1}{2}\foo{3} 5}", "5", Verdict.WRONG),  # not the last number of what cannot be parsed
    ("5", "5", Verdict.NO_ANSWER),
    (r"\boxed{ }", "5", Verdict.NO_ANSWER),
    (r"\boxed{5", "5", Verdict.NO_ANSWER),
    (r"\boxed{5} \boxed{", "5", Verdict.NO_ANSWER),
    (r"\boxed{4.25}", r"4.2\tolerance{1e-1}", Verdict.CORRECT),
    (r"\boxed{4.35}", r"4.2\tolerance{1e-1}", Verdict.WRONG),
    (r"\boxed{\sqrt{18}}", r"4.2\tolerance{1e-1}", Verdict.CORRECT),
]


def test_cases(pool):
    completions, answers, expected = zip(*CASES, strict=True)
    assert verdicts(pool, completions, answers) == list(expected)
    assert verdicts(pool, [], []) == []
    with pytest.raises(ValueError, match="shorter"):
        pool.submit(["1", "2"], asked("1"))


def test_not_installed(monkeypatch):
    monkeypatch.setattr(mathematics.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install mpmath"):
        reward.make("math")


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


def agreement(data, pool, name):
    """Share of the recorded verdicts that ours equal, and the numbers and sources of the others."""
    pairs = [json.loads(line) for line in (data / "grading" / name).read_text().splitlines()]
    completions = [p["prediction"] if r"\boxed" in p["prediction"] else rf"\boxed{{{p['prediction']}}}" for p in pairs]
    got = verdicts(pool, completions, [p["gold"] for p in pairs])
    wrong = {i: p for i, (p, v) in enumerate(zip(pairs, got, strict=True)) if (v == Verdict.CORRECT) != p["equal"]}
    return 1 - len(wrong) / len(pairs), wrong


def test_answer_pairs(data, pool):
    """Exactly those verdicts differ that are known to."""
    share, wrong = agreement(data, pool, "answer_pairs.jsonl")
    assert share >= 0.985
    assert list(wrong) == list(DISAGREE)


def test_reports(data, pool):
    """Every public bug report is answered."""
    _, wrong = agreement(data, pool, "reports.jsonl")
    assert not wrong


def test_kinds(pool):
    """Of each kind of fault many variants, in both directions."""
    pairs = grading_kinds.pairs()
    got = verdicts(pool, [rf"\boxed{{{a}}}" for _, a, _, _ in pairs], [g for _, _, g, _ in pairs])
    assert not [p for p, v in zip(pairs, got, strict=True) if (v == Verdict.CORRECT) != p[3]]


def golds(data):
    """Every distinct gold answer of every set."""
    files = sorted((data / "train").glob("*.parquet")) + sorted((data / "eval").glob("*.parquet"))
    return list(dict.fromkeys(str(a) for f in files for a in pq.read_table(f)["answer"].to_pylist()))


SPOKEN = re.compile(
    r"\\(?:text|mathrm|mbox|circ|le|ge|ne|in|leq|geq|neq|cup|equiv|infty|pmod|mathbb|cong|subseteq|mid|parallel|approx|geqslant)(?![a-z])|[=<>%:;,$°]|\\\{|[a-z]\.|\.$|^\([A-F]\)"
)


def rewritings(gold):
    """Natural ways to write a gold answer, by what was done."""
    bare = gold.strip().strip("$").strip()
    ways = {
        "dfrac": re.sub(r"\\[dt]?frac(?![a-z])", r"\\dfrac", bare),
        "spaces": r"\; " + re.sub(r"(?<=[^\\a-zA-Z{])([-+*/=,])(?!\d{3}|\})", r" \1 ", bare) + r" \,",
    }
    if not re.search(r"\\(?:left|right|big)", bare) and bare.count("(") == bare.count(")"):
        ways["left"] = re.sub(r"(?<!\\)\)", r"\\right)", re.sub(r"(?<!\\)\(", r"\\left(", bare))
    if not re.search(r"\\(?:text|mathrm|mbox|begin|hline|operatorname|frac |sqrt )|[a-zA-Z]{2} ", bare):
        ways["commands"] = re.sub(r"(?<=[\w})]) (?=[\w\\({])", r"\\;", bare)
    if re.fullmatch(r"-?\d+(?:\.\d+)?(?:\s*\\?%|(?:, -?\d+)+)", bare):
        ways["x ="] = "x = " + bare
    if (
        not SPOKEN.search(bare)
        and not re.search(r"[a-zA-Z]{3}", re.sub(r"\\[a-zA-Z]+", "", bare))
        and bare.count("{") == bare.count("}")
    ):
        ways["x ="] = "x = " + bare
        if re.search(r"\d", bare) and gold.count("$") != 1 and not re.search(r"_\{?\d+\}?$| [a-zA-Z]+$", bare):
            ways["unit"] = bare + r" \text{ cm}"
    return ways


def mutations(gold):
    """Pairs of a wrong answer and a gold answer, by what was changed."""
    bare = gold.strip().strip("$").strip()
    letters = re.sub(r"\\[a-zA-Z]+", "", bare)
    if SPOKEN.search(bare) or re.search(r"[a-zA-Z]{3}|\\pm|\\mp|\|", letters) or bare.count("{") != bare.count("}"):
        return {}
    pairs = {"name": (f"x = {bare}", f"y = {bare}")} if not re.search(r"(?<!\\)[xy]", letters) else {}
    if re.search("[1-9]", bare) and not re.search(r"_|[a-zA-Z]$", bare):
        pairs |= {
            "unit": (bare + r" \text{ cm}", bare + r" \text{ m}"),
            "unit in x =": (rf"x = {bare} \text{{ cm}}", rf"x = {bare} \text{{ km}}"),
            "unit and order": (rf"x > {bare} \text{{ s}}", rf"x > {bare} \text{{ h}}"),
        }
    if re.fullmatch(r"(?!.*x)(?:[\d.]|\\d?frac\{\d+\}\{\d+\}|\\sqrt\{\d+\}|[a-zA-Z]|\\pi)+", bare) and re.search(
        "[1-9a-z]", bare
    ):
        pairs |= {"sign": ("-" + bare, gold), "sign in x =": (f"x = -{bare}", f"x = {bare}")}
    if match := re.search(r"[a-zA-Z]_\{?(\d)\}?", bare):
        pairs["index"] = bare[: match.start(1)] + str(int(match[1]) + 1) + bare[match.end(1) :], gold
    return pairs


def test_mutated_golds_are_wrong(data):
    """With another unit, sign, index or name, also within `x = ...`, no gold answer is right."""
    every = golds(data)
    every = random.Random(1).sample(every, 600) + [g for g in every if "_" in g]
    pairs = [(name, *pair) for gold in every for name, pair in mutations(gold).items()]
    assert len(pairs) > 2000 and len({name for name, _, _ in pairs}) == 7
    assert not [p for p in pairs if graded(*p[1:])]


def graded(answer, gold):
    """The verdict without processes."""
    quick = mathematics.quick(answer, gold)
    return equality.equal(answer, gold) if quick is None else quick


def equal_themselves(pool, golds):
    """The rewritings that are not graded as right."""
    written = [(g, name, text) for g in golds if g.count("{") == g.count("}") for name, text in rewritings(g).items()]
    got = verdicts(pool, [rf"We get $\boxed{{{text}}}$." for _, _, text in written], [g for g, _, _ in written])
    return [w for w, v in zip(written, got, strict=True) if v != Verdict.CORRECT]


def test_golds_equal_themselves(data, pool):
    """Written a little differently, every gold answer is still right: a sample of all sets."""
    every = golds(data)
    assert not equal_themselves(pool, random.Random(0).sample(every, 1500))
    assert pool.readable(asked(["5", r"\frac{x}{2}", "Yes", r"a \parallel b"])).tolist() == [True] * 3 + [False]


@pytest.mark.slow
def test_all_golds_equal_themselves(data, pool):
    """And all of them; of 14,500 no more than one in a hundred cannot be read."""
    every = golds(data)
    assert not equal_themselves(pool, every)
    assert pool.readable(asked(every)).mean() > 0.98


def test_different_golds_are_different(data):
    """Pairs of different gold answers, of the same shape where there are such, are equal only if they look it."""
    rng = random.Random(0)
    every = [g for g in golds(data) if mathematics.number(mathematics.plain(g)) is None]
    shapes = collections.defaultdict(list)
    for gold in every:
        shapes[re.sub(r"\d+", "1", mathematics.plain(gold))].append(gold)
    alike = [s for s in shapes.values() if len(s) > 1]
    for _ in range(1000):
        a, b = rng.sample(rng.choice(alike), 2)
        if equality.equal(a, b):
            assert sorted(filter(str.isdigit, a)) == sorted(filter(str.isdigit, b)), (a, b)
        assert equality.equal(a, b) == equality.equal(b, a)


def test_golds_that_cannot_be_read_are_told(tmp_path):
    """On the first screen and in questions.jsonl."""
    pool = Questions(
        ("a?", "b?"), ("5", r"a \parallel b"), ("x", "x"), np.ones(2, np.int32), np.ones(2, np.float32), ("f:0", "f:1")
    )
    readable = np.array([True, False])
    assert "1 gold answers that cannot be read" in questions.describe(pool, [1, 1], readable)
    assert "cannot be read" not in questions.describe(pool, [1, 1], readable | True)
    questions.write(pool, str(tmp_path), [1, 1], readable)
    rows = [json.loads(line) for line in (tmp_path / questions.FILE).read_text().splitlines()]
    assert [row.get("readable") for row in rows] == [None, False]


def test_tolerance_of_a_set(data):
    answers = real.load_sets("olympiadbench", str(data))[0].answers
    assert [a for a in answers if "tolerance" in a] == [r"4.2\tolerance{1e-1}"]
