"""What the screen shows of a run while it goes: its pace, its measures, and what is wrong."""

import collections
import math
import shutil
import sys
import time

import numpy as np

from dots_jax import reward
from dots_jax.core.distributed import from_main
from dots_jax.core.errors import tell
from dots_jax.core.text import WIDTH, duration, short

COLLAPSED = 0.5  # effective sample size, as a share of the replayed tokens, below which replay is called harmful
_REPLAYING = 5  # steps that replay, most of whose tokens must lie in such steps: one outlier makes a step one of them
_ROUND = 2  # steps at least: a single small batch says little
_FRUITLESS = (  # what all steps of a round show, the likeliest cause of useless groups first, and what to do
    (
        {"train/truncated": 1},
        "every completion was truncated; raise config.rollout.max_tokens, or see whether the policy can write at all",
    ),
    (
        {"train/reward": 0},
        "no completion earned a reward; take an easier pool (config.data), a stronger policy, or check its weights",
    ),
    (
        {"train/reward": 1, "train/useful_groups": 0},
        "every completion was right; take a harder pool (config.data)",
    ),
    (
        {"train/useful_groups": 0},
        "every group was all right or all wrong; raise config.rollout.group_size or config.rollout.temperature",
    ),
)


class TimeLimit:
    """When a run has no time for another step; `deadline` is of `time.monotonic`, None: there is none."""

    def __init__(self, deadline: float | None):
        self._deadline, self._at, self._longest = deadline, 0.0, 0.0

    def note(self, compiled: float, is_step: bool) -> None:
        """Notes the end of a step, or of what comes before the first one; `compiled` are seconds in all."""
        at = time.monotonic() - compiled
        self._longest = max(self._longest, at - self._at) if is_step else 0.0
        self._at = at

    def is_up(self) -> bool:
        """Whether a step as long as the longest so far, but for compilation, would end too late; on all processes."""
        if self._deadline is None:
            return False
        left = self._deadline - time.monotonic()
        return bool(from_main(lambda: np.int32(left < self._longest), np.int32(0)))


class Progress:
    """A bar on a terminal, a plain line every ten steps and at each evaluation elsewhere; written to stderr."""

    def __init__(self, total_steps: int, round_steps: int = 1, name: str = "math", answer: str = "box"):
        self._total, self._stream, self._reward = total_steps, sys.stderr, (name, answer)
        self._round = collections.deque(maxlen=max(_ROUND, round_steps))  # metrics of the last steps
        self._replayed = collections.deque(maxlen=_REPLAYING)  # (effective sample size, tokens) of the last such steps
        self._recent = collections.deque(maxlen=11)  # (step, seconds, seconds at work, generated tokens)
        self._accuracy = self._compile = None
        self._predictor = {}  # the last measures of its predictions
        self._shown = set()  # names of alarms
        self._bar = None

    def start(self, step: int) -> None:
        """Shows the bar, at a step; it waits for what compiles."""
        if self._stream.isatty():
            from tqdm import tqdm

            columns = min(WIDTH, shutil.get_terminal_size().columns) - 1
            where = {"file": self._stream, "ncols": columns, "nrows": 24}  # where it reports no rows it would be empty
            layout = "{n_fmt}/{total_fmt} |{bar}| {desc}"
            self._bar = tqdm(total=self._total, initial=step, desc="compiling", bar_format=layout, **where)

    def update(self, step: int, metrics: dict) -> None:
        """Shows the row of metrics of `step`, as `metrics.jsonl` has it."""
        accuracy = metrics.get("eval/accuracy")
        if accuracy is not None:
            self._accuracy = float(accuracy)
        # Of the references: those trained on were chosen to be alike, and any correlation over them is low.
        for name in ("pearson", "spearman", "mae", "calibration", "precision"):
            value = metrics.get(f"predictor/reference_{name}")
            if value is not None and math.isfinite(value):
                self._predictor[name] = float(value)
        self._alarm(step, metrics)
        pace = self._pace(step, metrics)
        plain = accuracy is not None or step % 10 == 0 or step == self._total
        if self._bar is None and not plain:
            return
        text = self._text(metrics, pace)
        if self._bar is not None:
            self._bar.set_description_str(text, refresh=False)
            self._bar.n = step
            self._bar.refresh()
        else:
            line = f"step {step}/{self._total}  {text}"
            while len(line) > WIDTH:  # the last parts matter least
                line = line.rpartition("  ")[0]
            if self._predictor:
                line += "\n  predicted difficulty:  " + "  ".join(f"{k} {v:.2f}" for k, v in self._predictor.items())
            print(line, file=self._stream, flush=True)

    def _alarm(self, step: int, metrics: dict) -> None:
        """Says in a line, once each, what is wrong.

        Most completions hold no answer, a whole round taught nothing, weights have collapsed, or a measure is NaN.
        """
        alarms = {}
        shares = metrics.get("verdicts/no_answer", 0), metrics.get("train/truncated", 0)
        if no_answers := reward.no_answers(*shares, *self._reward):
            alarms["no answers"] = no_answers
        if "train/reward" in metrics:
            self._round.append(metrics)
        if len(self._round) == self._round.maxlen and not no_answers:
            for signs, meaning in _FRUITLESS:
                if all(row.get(key) == value for row in self._round for key, value in signs.items()):
                    useless = not any(row["train/useful_groups"] for row in self._round)
                    alarms[meaning] = f"in the last {len(self._round)} steps {meaning}"
                    alarms[meaning] += "; no new group taught anything" if useless else ""
                    break
        if metrics.get("replay/tokens"):
            self._replayed.append((float(metrics["replay/effective_sample_size"]), float(metrics["replay/tokens"])))
            tokens = sum(tokens for _, tokens in self._replayed)
            low = sum(tokens for size, tokens in self._replayed if size < COLLAPSED)
            if len(self._replayed) == _REPLAYING and low > tokens / 2:
                size = sum(size * tokens for size, tokens in self._replayed) / tokens
                alarms["collapsed"] = (
                    f"importance weights of replayed tokens have collapsed (effective sample size {100 * size:.0f}% in "
                    f"the last {_REPLAYING} steps with any); lower config.learner.learning_rate or set "
                    "config.replay.max_age"
                )
        if metrics.get("replay/ended"):
            alarms["gate"] = "the gradient leapt: replay has ended (config.replay.gate; docs/metrics.md, replay/gate)"
        used = ("train/", "replay/") if metrics.get("replay/tokens") else ("train/",)
        broken = [k for k, v in metrics.items() if k.startswith(used) and np.ndim(v) == 0 and np.isnan(v)]
        if broken:
            alarms["broken"] = f"{', '.join(broken)}: not a number"
        for name in alarms.keys() - self._shown:
            tell(f"step {step}: {alarms[name]}", "warning")
        self._shown |= alarms.keys()

    def close(self) -> None:
        """Ends the bar's line."""
        if self._bar is not None:
            self._bar.close()

    def _text(self, metrics: dict, pace: list[str]) -> str:
        parts = []
        if self._accuracy is not None:
            parts.append(f"held-out {self._accuracy:.3f}")
        if metrics.get("train/reward") is not None:
            parts.append(f"reward {float(metrics['train/reward']):.3f}")
        if metrics.get("train/useful_groups") is not None:
            parts.append(f"useful {100 * float(metrics['train/useful_groups']):.0f}%")
        if self._bar is not None and "pearson" in self._predictor:
            parts.append(f"pearson {self._predictor['pearson']:.2f}")
        parts += pace
        compiled = float(metrics.get("ledger/seconds_compile", 0.0))
        if self._compile is None or compiled - self._compile >= 0.5:
            if compiled >= 0.5:
                parts.append(f"compiled {duration(compiled)}")
            self._compile = compiled
        return "  ".join(parts)

    def _pace(self, step: int, metrics: dict) -> list[str]:
        """Tokens per second and time left over the last ten steps, compile time left out of both."""
        names = ("seconds", *(f"ledger/seconds_{phase}" for phase in ("compile", "evaluation", "cost_excluded")))
        whole, compiling, evaluating, cost_excluded = (float(metrics.get(name, 0.0)) for name in names)
        seconds, at_work = whole - compiling + cost_excluded, whole - compiling - evaluating
        self._recent.append((step, seconds, at_work, float(metrics.get("ledger/generated_tokens", 0))))
        first, last = self._recent[0], self._recent[-1]
        if last[0] == first[0] or last[2] <= first[2]:
            return []
        speed = (last[3] - first[3]) / (last[2] - first[2])
        left = (self._total - step) * (last[1] - first[1]) / (last[0] - first[0])
        return [f"{short(speed)} tok/s", f"ETA {duration(left)}"]
