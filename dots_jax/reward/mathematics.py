"""Grades boxed mathematical answers: quickly where that is exact, else with math-verify in killable processes."""

import collections
import contextlib
import functools
import importlib.util
import json
import os
import queue
import re
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from fractions import Fraction
from pathlib import Path

import numpy as np

from dots_jax.core.errors import UserError
from dots_jax.reward import Verdict

LONGEST = 4000  # characters, within what int() reads; a longer answer is WRONG unless it is the gold answer itself
CACHED = 1 << 17  # pairs of answer and gold answer
START = 120.0  # seconds a process may take to import sympy on a busy machine
PATIENCE = 20.0  # wall-clock seconds per second of processor time: a process that takes longer hangs

_TOKENS = re.compile(r"\\?\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BETWEEN = re.compile(r"(?:[\s$&]|\\q?quad|\\[,;! ()\[\]]|(,|;|\band\b|\bor\b|\\text\s*\{\s*,?\s*(?:and|or)\s*\}))+")


def _boxes(text: str) -> list[tuple[int, int, int]]:
    """Balanced boxes by where they begin: (begin, begin of content, end of content). Linear in the text's length."""
    first = min((i for i in (text.find(r"\boxed"), text.find(r"\fbox")) if i >= 0), default=len(text))
    opened: list[tuple[int, int] | None] = []  # None: a brace that is no box
    boxes = []
    for token in _TOKENS.finditer(text, first):
        if token[0] == "}":
            if opened and (box := opened.pop()):
                boxes.append((*box, token.start()))
        elif token[0] == "{":
            opened.append(None)
        elif token[0][-1] == "{" and len(token[0]) > 2:
            opened.append(token.span())
    return sorted(boxes)


def boxed(text: str) -> str | None:
    r"""Content of the last balanced `\boxed{...}` or `\fbox{...}`, of nested ones the inner; None without one.

    Escaped braces do not count, nor does a box that is never closed or has no braces.
    """
    boxes = _boxes(text)
    return text[boxes[-1][1] : boxes[-1][2]] if boxes else None


def final_answer(completion: str) -> str | None:
    """The last box, together with those before it that only commas, 'and' or 'or' separate: these are one answer."""
    boxes = _boxes(completion)
    if not boxes:
        return None
    parts = [completion[boxes[-1][1] : boxes[-1][2]]]
    for (_, begin, end), (following, _, _) in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        between = following - end < 100 and _BETWEEN.fullmatch(completion, end + 1, following)
        if not between or not between[1]:
            break
        parts.append(completion[begin:end])
    return ", ".join(dict.fromkeys(p.strip() for p in reversed(parts)))


@functools.lru_cache(maxsize=1 << 12)
def plain(text: str) -> str:
    """An answer without what carries no meaning: spaces, dollar signs around it, a full stop, sizes."""
    text = re.sub(r"(?<!\\)\\(?:!|(?:left|right|displaystyle)(?![a-zA-Z]))", "", text)
    text = re.sub(r"(?<!\\)(?:\\[,;: ]|~)", " ", text).replace("{,}", ",")
    text = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text)
    text = " ".join(text.split()).strip("$ ")
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip("$ ")
    return re.sub(r"(?<=\W) | (?=\W)", "", text)


_DECIMAL = re.compile(
    r"([-+]?)([0-9]{1,3}(?:[, ][0-9]{3})+|[0-9]*)(\.[0-9]*)?"
    r"(?:(?:[eE]|(?:\\times|\\cdot|\*) ?10\^)(\{?)([-+]?[0-9]{1,3})(\}?))?"
)
_FRACTION = re.compile(
    r"([-+]?)(?:\\frac\{([-+]?[0-9]+)\}\{([0-9]+)\}|\\frac ?([0-9])([0-9])|([-+]?[0-9]+)\.?/([0-9]+)\.?)"
)


def number(text: str) -> tuple[Fraction, bool, bool] | None:
    r"""Value of a `plain` answer that is one number, whether it was written exactly, and whether with separators.

    Whole numbers (`073`, `1,234`, `\$5`), decimals, `1.5e-10`, `1.5\times10^{-10}`, `\frac{1}{2}`, `1/2`.
    """
    text = text.replace(r"\$", "", 1)
    if match := _FRACTION.fullmatch(text):
        top, bottom = (int(s) for s in match.groups()[1:] if s is not None)
        return (Fraction(top, bottom) * (-1 if match[1] == "-" else 1), True, False) if bottom else None
    match = _DECIMAL.fullmatch(text)
    if not match or not (match[2] or (match[3] or "")[1:]) or len(match[4] or "") != len(match[6] or ""):
        return None
    sign, whole, decimals = match[1], re.sub("[, ]", "", match[2]), (match[3] or "").strip(".")
    value = Fraction(int(sign + (whole or "0") + decimals), 10 ** len(decimals)) * Fraction(10) ** int(match[5] or 0)
    return value, not decimals.strip("0") and match[5] is None, whole != match[2]


def quick(answer: str, gold: str) -> bool | None:
    """Whether two answers are equal, where their text or exact arithmetic tells; None where it does not.

    A number written in decimals equals another within 1e-6, and for small ones within a ten-thousandth of the gold.
    """
    if max(len(answer), len(gold)) > LONGEST:
        return answer == gold
    answer, gold = plain(answer), plain(gold)
    if answer == gold:
        return True
    a, b = number(answer), number(gold)
    if a is None or b is None:
        return None
    tolerance = 0 if a[1] and b[1] else min(Fraction(1, 10**6), abs(b[0]) / 10**4)
    close = abs(a[0] - b[0]) <= tolerance
    # `1,234` may also be two numbers.
    return None if not close and (a[2] or b[2]) else close


class Pool:
    """Grades boxed answers in `workers` processes (0: one per core, at most 8), started when first needed.

    The answer is the last box of the completion (`final_answer`); without one the verdict is NO_ANSWER. What `quick`
    cannot tell is compared by math-verify: an answer that it cannot parse is WRONG, one that takes more than `seconds`
    of processor time a TIMEOUT, one that kills its process (its memory is limited) CRASHED, and the process is
    replaced. How busy the machine is changes no verdict; one that hangs is a TIMEOUT after PATIENCE times as long.
    Equal pairs are graded once, timeouts too. Rewards are 1 for CORRECT, else 0. Any thread may submit. Raises
    UserError where math-verify is not installed or does not start.
    """

    slow = True

    def __init__(self, workers: int = 0, seconds: float = 5.0):
        if importlib.util.find_spec("math_verify") is None:
            raise UserError("config.reward 'math' wants a package that is not installed: pip install math-verify")
        self.workers = workers or min(8, _cores())
        self.state = _State(seconds)
        self.threads: list[threading.Thread] = []
        self._finalizer = weakref.finalize(self, self.state.close)  # at exit too

    def submit(self, completions: Sequence[str], answers: Sequence[str]) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """See `Grader.submit`; the function returned raises UserError if the pool is closed before it is done."""
        if len(completions) != len(answers):
            raise ValueError(f"{len(completions)} completions, but {len(answers)} answers")
        verdicts = [self._begin(completion, gold) for completion, gold in zip(completions, answers, strict=True)]

        def wait() -> tuple[np.ndarray, np.ndarray]:
            done = np.array([v.result() if isinstance(v, Future) else v for v in verdicts], np.int8)
            return (done == Verdict.CORRECT).astype(np.float32), done

        return wait

    def _begin(self, completion: str, gold: str) -> Verdict | Future:
        answer = final_answer(completion)
        if answer is None or not answer.strip():
            return Verdict.NO_ANSWER
        equal = quick(answer, gold)
        if equal is not None:
            return Verdict.CORRECT if equal else Verdict.WRONG
        future = self.state.enqueue((answer, gold))
        with self.state.lock:
            if not self.threads:
                self.threads = [
                    threading.Thread(target=_serve, args=[self.state], daemon=True) for _ in range(self.workers)
                ]
                for thread in self.threads:
                    thread.start()
        return future

    def close(self) -> None:
        """Kills the processes; results that are still awaited raise UserError."""
        self._finalizer()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _State:
    """What a pool shares with its threads, which must not keep the pool itself alive."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.lock = threading.RLock()  # the garbage collector may close a pool anywhere
        self.jobs: queue.SimpleQueue[tuple[tuple[str, str], Future] | None] = queue.SimpleQueue()
        self.cache: collections.OrderedDict[tuple[str, str], Future] = collections.OrderedDict()
        self.awaited: set[Future] = set()
        self.processes: set[subprocess.Popen] = set()
        self.error: UserError | None = None  # set once the pool is of no more use

    def enqueue(self, pair: tuple[str, str]) -> Future:
        """The verdict to come on (answer, gold)."""
        with self.lock:
            if self.error:
                raise self.error
            if pair not in self.cache:
                self.cache[pair] = future = Future()
                self.awaited.add(future)
                self.jobs.put((pair, future))
                if len(self.cache) > CACHED:
                    self.cache.popitem(last=False)
            self.cache.move_to_end(pair)
            return self.cache[pair]

    def settle(self, future: Future, verdict: Verdict) -> None:
        """Hands over a verdict, unless the pool failed in the meantime."""
        with self.lock:
            if future in self.awaited:
                self.awaited.remove(future)
                future.set_result(verdict)

    def close(self, reason: str = "the grader was closed") -> None:
        """Kills all processes and lets nobody go on waiting."""
        with self.lock:
            self.error = self.error or UserError(reason)
            for future in self.awaited:
                future.set_exception(self.error)
            self.awaited.clear()
            for process in self.processes:
                process.kill()
                process.wait()
            self.jobs.put(None)

    def start(self) -> subprocess.Popen:
        """A process that is ready to grade. Raises UserError if it does not start or the pool is closed."""
        path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        process = subprocess.Popen(
            [sys.executable, "-m", "dots_jax.reward.worker", str(self.seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | threads | {"PYTHONPATH": os.pathsep.join(path)},
        )
        with self.lock:
            self.processes.add(process)
            if self.error:
                process.kill()
        reply = _receive(process, START)
        if reply == "ready":
            return process
        self.end(process)
        reason = reply.removeprefix("error: ") if reply else "too slow" if reply is None else "it died"
        raise UserError(f"grading with math-verify does not start: {reason}; try pip install -U math-verify")

    def end(self, process: subprocess.Popen) -> None:
        """Kills and forgets a process."""
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        with self.lock:
            self.processes.discard(process)


def _serve(state: _State) -> None:
    """One thread: grades what is in the queue with a process of its own until the pool closes."""
    process = None
    try:
        while job := state.jobs.get():
            pair, future = job
            process, verdict = _ask(state, process, pair)
            state.settle(future, verdict)
    except (UserError, OSError) as error:
        state.close(str(error))
    finally:
        state.jobs.put(None)  # for the next thread
        if process:
            state.end(process)


def _ask(
    state: _State, process: subprocess.Popen | None, pair: tuple[str, str]
) -> tuple[subprocess.Popen | None, Verdict]:
    """Verdict on one pair, and the process if it can go on."""
    for _ in range(2):  # a process that died while idle says nothing about this pair
        process = process or state.start()
        try:
            process.stdin.write(json.dumps(pair).encode() + b"\n")
            process.stdin.flush()
            break
        except OSError:
            state.end(process)
            process = None
    reply = _receive(process, PATIENCE * state.seconds) if process else ""
    if process and reply not in ("0", "1"):
        state.end(process)
        process = None
    if not reply:
        return process, Verdict.TIMEOUT if reply is None else Verdict.CRASHED
    return process, Verdict.CORRECT if reply[0] == "1" else Verdict.WRONG


def _receive(process: subprocess.Popen, seconds: float) -> str | None:
    """The next line of a process; empty if it died, None if its processor time or these `seconds` ran out."""
    deadline, line, poll = time.monotonic() + seconds, b"", select.poll()
    poll.register(process.stdout, select.POLLIN)
    while not line.endswith(b"\n"):
        if not poll.poll(1000 * max(0.0, deadline - time.monotonic())):
            return None
        part = os.read(process.stdout.fileno(), 4096)
        if not part:
            return None if process.wait() == -signal.SIGPROF else ""
        line += part
    return line.decode().strip()
