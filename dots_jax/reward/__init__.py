"""Rewards, one file each: a function of a completion and its question, or a grader of many at a time."""

import inspect
from collections.abc import Callable, Sequence

import numpy as np

from dots_jax.core import plugins
from dots_jax.core.errors import UserError, first_line, tell
from dots_jax.core.rules import shortened
from dots_jax.reward.marks import find_answer
from dots_jax.reward.types import Grader, Question, Verdict

__all__ = [
    "REWARDS", "Grader", "Question", "Verdict", "check", "describe", "extracted", "find", "find_answer", "grade",
    "make", "no_answers",
]  # fmt: skip

REWARDS = {
    "countdown": "dots_jax.reward.countdown:score",
    "exact": "dots_jax.reward.exact:score",
    "math": "dots_jax.reward.mathematics:Pool",
    "proxy": "dots_jax.reward.proxy:score",
    "reasoning_gym": "dots_jax.reward.reasoning_gym:Pool",
}
_FAILURES = 3  # batches in a row of which nothing could be graded, after which a run ends
_PLACES = {  # `config.reward.answer`: where an answer may stand
    "box": r"in \boxed{}",
    "marked": r'in \boxed{} or behind #### or "answer is"',
    "last": r'in \boxed{}, behind #### or "answer is", or as a last number',
}


class Function:
    """A grader from a function (completion, question) -> reward, which is done when `submit` returns.

    A reward of at least one half is CORRECT, any other WRONG. Where the function raises, or returns what is no number
    in [0, 1], the reward is 0 and the verdict CRASHED; each place in its file is told once. Raises UserError where this
    is so of all of the first batch, or of three batches in a row. An attribute `extracted` of the
    function is the grader's.
    """

    slow = False

    def __init__(self, function: Callable[[str, Question], float], name: str):
        self._function, self._name = function, name
        self.extracted = getattr(function, "extracted", None)
        self._told, self._has_graded, self._failures = set(), False, 0

    def submit(
        self, completions: Sequence[str], questions: Sequence[Question]
    ) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """See `Grader.submit`."""
        rewards, raised = np.zeros(len(completions), np.float32), {}
        for i, (completion, question) in enumerate(zip(completions, questions, strict=True)):
            try:
                value = self._function(completion, question)
            except (Exception, SystemExit) as error:
                place, why = plugins.place(error), first_line(error, typed=True)
                raised[i] = (type(error), place), f"of the question {_name(question)} ({why}{place})"
            else:
                rewards[i] = number = _number(value)
                if np.isnan(number):
                    why = f"returned {shortened(value)}, not a number in [0, 1]"
                    raised[i] = "value", f"of the question {_name(question)} ({why})"
        rewards[[*raised]] = 0
        self._failures = self._failures + 1 if len(raised) == len(rewards) > 0 else 0
        if self._failures == (_FAILURES if self._has_graded else 1):
            batches = f"{_FAILURES} batches in a row, on all" if self._has_graded else "all"
            raise UserError(
                f"config.reward={self._name} failed on {batches} {len(rewards)} completions, such as one "
                f"{raised[0][1]}; mend it and start again, a run with --config.train.mended_reward=True"
            )
        self._has_graded |= not self._failures
        for place, about in raised.values():
            if place not in self._told:
                tell(f"config.reward={self._name} failed on a completion {about}; such ones get reward 0", "warning")
            self._told.add(place)
        verdicts = np.where(rewards >= 0.5, Verdict.CORRECT, Verdict.WRONG).astype(np.int8)
        verdicts[[*raised]] = Verdict.CRASHED
        return lambda: (rewards, verdicts)

    def close(self) -> None:
        """Nothing to end."""

    def readable(self, questions: Sequence[Question]) -> None:
        """Nothing to say."""


def _number(value: object) -> float:
    """In [0, 1]; NaN for what is no such number."""
    try:
        reward = np.nan if isinstance(value, str | bytes) else float(value)
    except Exception:  # of whatever class it is
        reward = np.nan
    return min(max(reward, 0.0), 1.0) if -1e-6 <= reward <= 1 + 1e-6 else np.nan  # sums of shares are off by as much


def _name(question: Question) -> str:
    return question.name or shortened(question.problem)


class Own:
    """A grader of a user's own class: what it raises while it grades is a UserError."""

    def __init__(self, grader: Grader, name: str):
        self._grader, self._failed = grader, f"config.reward={name} failed; mend it and start again"

    def __getattr__(self, name: str):
        return getattr(self._grader, name)

    def submit(
        self, completions: Sequence[str], questions: Sequence[Question]
    ) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """See `Grader.submit`."""
        with plugins.guarded(self._failed):
            result = self._grader.submit(completions, questions)

        def wait() -> tuple[np.ndarray, np.ndarray]:
            with plugins.guarded(self._failed):
                return result()

        return wait


def find(name: str) -> Callable:
    """What `config.reward` names. Raises UserError where there is none."""
    return plugins.find(name, REWARDS, "reward", callable, "a function or class")


def check(name: str, answer: str) -> None:
    """Raises UserError where `config.reward` names none, or one to which its field `answer` is nothing."""
    find(name)
    if answer != "box" and name != "math":
        raise UserError(
            f"config.reward.answer={answer} has no effect with config.reward={name}; it says where math finds the "
            "answer: leave it out"
        )


def make(name: str, answer: str = "box") -> Grader:
    """The grader that `config.reward` names: a short name, or of a function or a class as `plugins.find` reads it.

    `answer` is where "math" finds the answer of a completion, as `find_answer`. Raises UserError where there is none,
    or its packages are not installed.
    """
    found = find(name)
    if not inspect.isclass(found):
        return Function(found, name)
    with plugins.guarded(f"config.reward={name} cannot be made"):
        grader = found(answer=answer) if name == "math" else found()
    if not callable(getattr(grader, "submit", None)):
        raise UserError(f"config.reward={name} has no method `submit`; see dots_jax.reward.Grader")
    return grader if name in REWARDS else Own(grader, name)


def describe(name: str, answer: str) -> str:
    """A line about a reward: its name, how its docstring begins, and where math finds the answer."""
    text = (inspect.getdoc(find(name)) or "a function of your own").splitlines()[0].rstrip(".")
    return f"{name}: {text}" + (f"; it stands {_PLACES[answer]}" if name == "math" else "")


def no_answers(share: float, truncated: float, name: str, answer: str) -> str:
    """A line where most completions hold no answer, and what to do; "" where most do.

    `share` of all have none, `truncated` are cut off; `name` and `answer` are those of `config.reward`.
    """
    if not share > 0.5:
        return ""
    mend = "see whether the policy follows its system prompt"
    if truncated > 0.5:
        mend = "most are truncated, raise max_tokens"
    elif name == "math" and answer != "last":
        mend = "--config.reward.answer=last takes the last number, in another --workdir (docs/mathematics.md)"
    where = f"answer {_PLACES[answer]}" if name == "math" else f"answer to config.reward={name}"
    return f"{share:.0%} of the completions have no {where}: {mend}"


def grade(completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
    """Verdicts on the boxed answers of mathematical completions, by processes that end with the call."""
    grader = make("math")
    try:
        _, verdicts = grader.submit(completions, [Question("", answer) for answer in answers])()
    finally:
        grader.close()
    return [Verdict(v) for v in verdicts]


def extracted(grader: Grader, completion: str) -> str | None:
    """The answer that the grader finds in a completion; None where there is none, or it does not say."""
    find = getattr(grader, "extracted", None)
    with plugins.guarded(f"config.reward: `extracted` failed; {plugins.AGAIN}", find):
        answer = find and find(completion)
    return None if answer is None else str(answer)
