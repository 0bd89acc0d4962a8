"""Grades boxed mathematical answers: quickly where that is exact, else by `equality` in killable processes."""

import collections
import contextlib
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
from pathlib import Path

import numpy as np

from dots_jax.core.errors import UserError
from dots_jax.reward.boxes import gold_answer
from dots_jax.reward.marks import find_answer
from dots_jax.reward.quick import number, plain, quick, tolerant
from dots_jax.reward.types import Question, Verdict

EQUALITY = "dots_jax.reward.equality"  # the module that the processes compare with
CACHED = 1 << 17  # pairs of answer and gold answer
START = 120.0  # seconds a process may take to start on a busy machine
Graded = tuple[float, Verdict]  # reward
PATIENCE = 20.0  # wall-clock seconds per second of processor time: a process that takes longer hangs


class Pool:
    """The final answer equals the gold answer, as docs/mathematics.md has it.

    A completion's answer is what `find_answer` finds, where `answer` says; without one the verdict is NO_ANSWER. What
    `quick` cannot tell is compared by `equality` in `workers` processes (0: one per core, at most 8), started when
    first needed: an answer that it cannot read is WRONG, one that takes more than `seconds` of processor time a
    TIMEOUT, one that kills its process (its memory is limited) CRASHED, and the process is replaced. How busy the
    machine is changes no verdict; one that hangs is a TIMEOUT after PATIENCE times as long. Equal pairs are graded
    once, timeouts too. Rewards are 1 for CORRECT, else 0. Any thread may submit. Raises UserError where mpmath is not
    installed or a process does not start.
    """

    slow = True

    def __init__(
        self, workers: int = 0, seconds: float = 5.0, answer: str = "box", module: str = "", package: str = "mpmath"
    ):
        if importlib.util.find_spec("mpmath") is None:
            raise UserError("config.reward 'math' wants a package that is not installed: pip install mpmath")
        self.workers, self.answer = workers or min(8, _cores()), answer
        self.state = _State(seconds, module or EQUALITY, package)
        self.threads: list[threading.Thread] = []
        self._finalizer = weakref.finalize(self, self.state.close)  # at exit too

    def submit(
        self, completions: Sequence[str], questions: Sequence[Question]
    ) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """See `Grader.submit`; the function returned raises UserError if the pool is closed before it is done."""
        graded = [self._begin(c, question) for c, question in zip(completions, questions, strict=True)]

        def wait() -> tuple[np.ndarray, np.ndarray]:
            done = [g.result() if isinstance(g, Future) else g for g in graded]
            return np.array([reward for reward, _ in done], np.float32), np.array([v for _, v in done], np.int8)

        return wait

    def extracted(self, completion: str) -> str | None:
        """See `Grader`."""
        answer = find_answer(completion, self.answer)
        return answer if answer and answer.strip() else None

    def readable(self, questions: Sequence[Question]) -> np.ndarray:
        """See `Grader.readable`."""
        found = [self._known(tolerant(gold_answer(question.answer))[0]) for question in questions]
        return np.array([f if isinstance(f, bool) else f.result()[1] == Verdict.CORRECT for f in found], bool)

    def _known(self, gold: str) -> bool | Future:
        return number(plain(gold)) is not None or self._ask_process(("", gold))

    def _begin(self, completion: str, question: Question) -> Graded | Future:
        answer, gold = self.extracted(completion), gold_answer(question.answer)
        if answer is None:
            return 0.0, Verdict.NO_ANSWER
        equal = quick(answer, gold)
        if equal is not None:
            return _graded(equal)
        return self._ask_process((answer, gold))

    def _ask_process(self, pair: tuple[str, str]) -> Future:
        future = self.state.enqueue(pair)
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


def environment() -> dict[str, str]:
    """That of a process of one thread which finds this package."""
    path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return os.environ | threads | {"PYTHONPATH": os.pathsep.join(path)}


def _graded(score: float) -> Graded:
    return float(score), Verdict.CORRECT if score >= 0.5 else Verdict.WRONG


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _State:
    """What a pool shares with its threads, which must not keep the pool itself alive."""

    def __init__(self, seconds: float, module: str, package: str):
        self.seconds, self.module, self.package = seconds, module, package
        self.lock = threading.RLock()  # the garbage collector may close a pool anywhere
        self.jobs: queue.SimpleQueue[tuple[tuple[str, str], Future] | None] = queue.SimpleQueue()
        self.cache: collections.OrderedDict[tuple[str, str], Future] = collections.OrderedDict()
        self.awaited: set[Future] = set()
        self.processes: set[subprocess.Popen] = set()
        self.error: UserError | None = None  # set once the pool is of no more use

    def enqueue(self, pair: tuple[str, str]) -> Future:
        """The result to come on (answer, gold)."""
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

    def settle(self, future: Future, graded: Graded) -> None:
        """Hands over a result, unless the pool failed in the meantime."""
        with self.lock:
            if future in self.awaited:
                self.awaited.remove(future)
                future.set_result(graded)

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
        process = subprocess.Popen(
            [sys.executable, "-m", "dots_jax.reward.worker", str(self.seconds), self.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
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
        raise UserError(f"grading does not start: {reason}; try pip install -U {self.package}")

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
            process, graded = _ask(state, process, pair)
            state.settle(future, graded)
    except (UserError, OSError) as error:
        state.close(str(error))
    finally:
        state.jobs.put(None)  # for the next thread
        if process:
            state.end(process)


def _ask(
    state: _State, process: subprocess.Popen | None, pair: tuple[str, str]
) -> tuple[subprocess.Popen | None, Graded]:
    """The result of one pair, and the process if it can go on."""
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
    score = re.fullmatch(r"(\d\S*)( last)?", reply or "")
    if process and (not score or score[2]):
        state.end(process)
        process = None
    if not score:
        return process, (0.0, Verdict.TIMEOUT if reply is None else Verdict.CRASHED)
    return process, _graded(float(score[1]))


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
