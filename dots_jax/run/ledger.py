"""What a run has cost: tokens and wall seconds by phase, compile time apart."""

import collections
import contextlib
import threading
import time

import jax

PHASES = (
    "reference",
    "fresh",
    "refill",
    "screening",
    "update",
    "score",
    "evaluation",
    "compile",
    "other",
    "cost_excluded",
)
SAMPLING = ("reference", "fresh", "refill", "screening")  # phases whose tokens a method pays for
KINDS = ("generated", "trained", "scored")

_COMPILE_EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
}


class _CompileClock:
    """Seconds that threads spent tracing, lowering and compiling; an event inside another counts once."""

    def __init__(self):
        self._seconds = collections.Counter()  # by thread
        self._outermost = collections.defaultdict(list)  # by thread: (start, seconds), in order
        jax.monitoring.register_event_duration_secs_listener(self._record)

    def _record(self, event: str, seconds: float, **_) -> None:
        if event not in _COMPILE_EVENTS:
            return
        thread, start = threading.get_ident(), time.time() - seconds
        spans = self._outermost[thread]
        while spans and spans[-1][0] >= start:  # events arrive when they end: what started later lay inside
            self._seconds[thread] -= spans.pop()[1]
        spans.append((start, seconds))
        self._seconds[thread] += seconds

    def __call__(self) -> float:
        """Seconds so far in the calling thread."""
        return self._seconds[threading.get_ident()]


_compile_clock = None


class Ledger:
    """Cumulative tokens and seconds by phase; the seconds of all phases add up to the wall time since the start.

    Seconds are the calling thread's: a phase that only dispatches work books only the dispatch. Phases nest; an
    inner phase's seconds are not the outer's. What lies outside any phase is "other", compilation is "compile".
    "cost_excluded" is what an oracle measures: booked, compilation there included, and left out of every total.
    """

    def __init__(self):
        global _compile_clock
        if _compile_clock is None:
            _compile_clock = _CompileClock()
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.tokens = {kind: dict.fromkeys(PHASES, 0) for kind in KINDS}
        self._phase, self._shown = "other", {}
        self._wall, self._compiled = time.perf_counter(), _compile_clock()

    @contextlib.contextmanager
    def phase(self, name: str):
        """Books the wall seconds inside to `name`, less those spent compiling. Raises KeyError for other names."""
        self.seconds[name]  # raises now rather than at the end
        self._book()
        outer, self._phase = self._phase, name
        try:
            yield
        finally:
            self._book()
            self._phase = outer

    def add_tokens(self, phase: str, *, generated: int = 0, trained: int = 0, scored: int = 0) -> None:
        """Adds completion tokens sampled, trained on, and given log-probs in a forward pass of their own."""
        for kind, count in (("generated", generated), ("trained", trained), ("scored", scored)):
            self.tokens[kind][phase] += int(count)

    def metrics(self) -> dict[str, float]:
        """Cumulative tokens and seconds as flat scalars, and under "step/" what was added since the last call.

        `ledger/generated_tokens` is what a method pays for; evaluation's tokens are in a field of their own.
        """
        self._book()
        generated = self.tokens["generated"]
        now = {
            "generated_tokens": sum(generated[name] for name in SAMPLING),
            "evaluation_tokens": generated["evaluation"],
            "cost_excluded_tokens": generated["cost_excluded"],
            "trained_tokens": sum(self.tokens["trained"].values()),
            "scored_tokens": sum(self.tokens["scored"].values()),
            **{f"generated_{name}": generated[name] for name in SAMPLING},
            **{f"seconds_{name}": seconds for name, seconds in self.seconds.items()},
        }
        step = {f"step/{name}": value - self._shown.get(name, 0) for name, value in now.items()}
        self._shown = now
        total = {"seconds": sum(self.seconds.values()) - self.seconds["cost_excluded"]}
        return total | {f"ledger/{name}": value for name, value in now.items()} | step

    def to_state(self) -> dict[str, float | int]:
        """Everything booked so far, as flat Python numbers for a checkpoint."""
        self._book()
        tokens = {f"{k}/{phase}": count for k, phases in self.tokens.items() for phase, count in phases.items()}
        return {f"seconds/{name}": seconds for name, seconds in self.seconds.items()} | tokens

    def restore(self, state: dict[str, float | int]) -> None:
        """Continues from `to_state`'s numbers; what was booked here is forgotten, and the clock runs from now."""
        self._book()
        for name, value in state.items():
            kind, phase = name.split("/")
            if kind == "seconds":
                self.seconds[phase] = float(value)
            else:
                self.tokens[kind][phase] = int(value)
        self.metrics()  # what follows is added to these

    def _book(self) -> None:
        """Books the time since the last call to the current phase and to "compile"."""
        wall, compiled = time.perf_counter(), _compile_clock()
        inside = min(max(compiled - self._compiled, 0.0), wall - self._wall) if self._phase != "cost_excluded" else 0.0
        self.seconds["compile"] += inside
        self.seconds[self._phase] += wall - self._wall - inside
        self._wall, self._compiled = wall, compiled
