"""The process that compares two answers: `python -m dots_jax.reward.worker SECONDS MODULE`.

One line of JSON, [answer, gold], comes in on stdin and one line goes out on stdout: the score, from 0 to 1, then
` last` if this process should now be replaced. The first line out is `ready` or `error: REASON`. MODULE has the
functions `equal` and `readable`, and `prepare` where it has something to load first. SIGPROF ends the process at an
answer that takes more than SECONDS of processor time. Nothing here imports JAX, or evaluates a text as Python.
"""

import importlib
import json
import logging
import os
import signal
import sys
from pathlib import Path

MEMORY = 2 << 30  # bytes of address space
ANSWERS = 5000  # then a fresh process takes over


def load(module: str):
    """The function (answer, gold) -> score; of an empty answer, whether the gold answer is understood."""
    equality = importlib.import_module(module)
    getattr(equality, "prepare", lambda: None)()
    return lambda answer, gold: equality.equal(answer, gold) if answer else equality.readable(gold)


def limit() -> None:
    """Caps the address space and core dumps where the system can."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass


def grown() -> bool:
    """Whether the process takes half of its memory; False where the system does not tell.

    Not `ru_maxrss`: on Linux a process inherits that of the one that started it, a whole training run's.
    """
    try:
        resident = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return False
    return resident * os.sysconf("SC_PAGE_SIZE") > MEMORY / 2


def main(seconds: float, module: str) -> None:
    """Answers lines until stdin closes, each within `seconds` of processor time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # no handler: in Python it would wait for the end of a loop in C
    lines, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # what a library prints must not reach the parent
        os.dup2(null, descriptor)
    logging.disable()
    limit()
    try:
        equal = load(module)
    except Exception as error:  # whatever keeps it from working is the parent's message
        replies.write(b"error: " + ascii(error).encode() + b"\n")
        return
    replies.write(b"ready\n")
    for count, line in enumerate(lines, 1):
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            score = equal(*json.loads(line))
        except MemoryError:
            os._exit(1)
        except Exception:  # an answer that cannot be parsed or compared, RecursionError included
            score = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        last = count >= ANSWERS or grown()
        replies.write(f"{float(score or 0):.6g}{' last' if last else ''}\n".encode())


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2])
