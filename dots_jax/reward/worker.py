"""The process that compares two answers with math-verify: `python -m dots_jax.reward.worker SECONDS`.

One line of JSON, [answer, gold], comes in on stdin and one line goes out on stdout: `1` or `0`, then ` last` if this
process should now be replaced. The first line out is `ready` or `error: REASON`. SIGPROF ends the process at an answer
that takes more than SECONDS of processor time. Nothing here imports JAX, and no text is ever evaluated as Python.
"""

import functools
import json
import logging
import os
import re
import signal
import sys
from pathlib import Path

MEMORY = 2 << 30  # bytes of address space
ANSWERS = 5000  # then a fresh process takes over: sympy's caches never shrink

# Parsed at the start: imports what sympy loads late, and antlr is several times faster on shapes it has seen.
WARM_UP = (
    r"\frac{1+\sqrt{5}}{2}",
    r"-\frac{3}{4}\pi + 2\sqrt[3]{2}",
    r"(x-2)^2 + 3xy - 1",
    r"x = \frac{-1 \pm \sqrt{13}}{4}",
    r"(1, -\frac{1}{2}), (2, 3)",
    r"\{-1, 0, 1\}",
    r"(-\infty, 2] \cup [3, \infty)",
    r"\begin{pmatrix} 1 & -2 \\ 3 & 4 \end{pmatrix}",
    r"90^\circ",
    r"2^{10} \cdot 3!",
    r"\sin x + \ln(2) e^{-2t}",
    r"\text{(E)}",
    r"3 \le x < 5",
    r"f(x) = 2x + 1",
    r"10\%",
    r"3 \text{ cm}",
    r"C_{1} e^{t} + \cos(2 t)",
    r"1.5 \times 10^{-3}",
    r"\binom{5}{2}",
    r"3 + 4i",
)


def load():
    """The function (answer, gold) -> bool; imports math-verify."""
    import math_verify
    import sympy

    latex, anything = math_verify.LatexExtractionConfig(), math_verify.ExprExtractionConfig()

    @functools.lru_cache(maxsize=1024)  # a question's gold answer is compared with many
    def parse(text):
        text = re.sub(r"\bnp\.(arc\w+|sin|cos|tan|sqrt|exp|ln|pi)", r"\\\1", text.replace("np.log(", "np.ln("))
        if re.search(r"(?<!\\)\$|\\\(|\\\[|\\boxed", text):
            return math_verify.parse(text, [latex, anything], parsing_timeout=None)
        # Not the last number in a formula that cannot be parsed.
        kinds = [latex] if "\\" in text else [latex, anything]
        return math_verify.parse(rf"\boxed{{{text}}}", kinds, parsing_timeout=None)

    def apart(a, b):
        """Whether two expressions differ at one point by more than any rounding, which spares their simplification."""
        if any(not isinstance(e, sympy.Expr) or e.is_Symbol or e.has(sympy.UnevaluatedExpr) for e in (a, b)):
            return False
        names = sorted({s.name for e in (a, b) for s in e.free_symbols})
        try:
            x, y = (complex(e.subs({s: 0.37 + 0.618 * names.index(s.name) for s in e.free_symbols})) for e in (a, b))
            return abs(x - y) > 1e-3 * max(1.0, abs(x), abs(y))  # False where either is not a number
        except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
            return False

    def equal(answer, gold):
        answer, gold = parse(answer), parse(gold)
        if not answer or not gold:
            return False
        if answer[-1] != gold[-1] and apart(answer[0], gold[0]):
            return False
        return math_verify.verify(gold, answer, timeout_seconds=None)

    for text in WARM_UP:
        equal(text, text.replace("2", "7"))
    return equal


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


def main(seconds: float) -> None:
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
        equal = load()
    except Exception as error:  # whatever keeps math-verify from working is the parent's message
        replies.write(b"error: " + ascii(error).encode() + b"\n")
        return
    replies.write(b"ready\n")
    for count, line in enumerate(lines, 1):
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            verdict = equal(*json.loads(line))
        except MemoryError:
            os._exit(1)
        except Exception:  # an answer that cannot be parsed or compared, RecursionError included
            verdict = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        last = count >= ANSWERS or grown()
        replies.write(f"{int(bool(verdict))}{' last' if last else ''}\n".encode())


if __name__ == "__main__":
    main(float(sys.argv[1]))
