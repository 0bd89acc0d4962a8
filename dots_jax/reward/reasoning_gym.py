"""Entries of the package reasoning-gym: made, and scored as the package does, in processes that can be killed.

`python -m dots_jax.reward.reasoning_gym TASKS SEED` makes them. Its first line out is a JSON object, the number of
levels of each task, or an `error`. A line [task, level] in is answered by the task's next entry at that level, or by
why there is none. Some scorers of the package run answers as Python: the processes that score start no others, open no
connections and write no files, and their memory and time are limited.
"""

import base64
import contextlib
import functools
import importlib.util
import json
import math
import os
import pickle
import signal
import sys
import zlib
from collections.abc import Callable

from dots_jax.core.errors import UserError, first_line, near
from dots_jax.reward import mathematics
from dots_jax.reward.boxes import last_answer
from dots_jax.reward.types import Question, Verdict

MODULE = "dots_jax.reward.reasoning_gym"
SECONDS = 20  # of processor time that an entry may take to make
MOST = 20_000  # entries at a level; a task of the package allows no more
ALLOWED = ("os.listdir", "os.scandir")  # in a process that scores: what a late import does


def check(field: str) -> None:
    """Raises UserError where the package is not installed, which the config's `field` wants."""
    if importlib.util.find_spec("reasoning_gym") is None:
        raise UserError(f"config.{field} wants a package that is not installed: pip install reasoning-gym")


class Pool(mathematics.Pool):
    """The package reasoning-gym's own score, in [0, 1], of the last answer (`boxes.last_answer`).

    At least one half is CORRECT. Without an answer the verdict is NO_ANSWER; a scorer that takes more than `seconds` of
    processor time is a TIMEOUT. Raises UserError where the package is not installed, and for other pools' questions.
    """

    def __init__(self, workers: int = 0, seconds: float = 10.0):
        check("reward=reasoning_gym")
        super().__init__(workers, seconds, module=MODULE, package="reasoning-gym")

    def extracted(self, completion: str) -> str | None:
        """See `Grader`."""
        return last_answer(completion) or None

    def readable(self, questions) -> None:
        """Nothing to say."""

    def _begin(self, completion: str, question: Question):
        answer, entry = self.extracted(completion), question.columns.get("entry")
        if entry is None:
            raise UserError("config.reward=reasoning_gym scores the pool config.data.name=reasoning_gym:TASK alone")
        return self._ask_process((answer, entry)) if answer else (0.0, Verdict.NO_ANSWER)


def prepare() -> None:
    """Loads the package; from then on this process changes nothing outside itself."""
    import reasoning_gym  # noqa: F401

    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def refuse(event: str, arguments: tuple) -> None:
        room = event.partition(".")[0]
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & writing
        if writes or (room in ("os", "subprocess", "socket", "shutil", "ctypes") and event not in ALLOWED):
            raise PermissionError(event)

    sys.addaudithook(refuse)


@functools.cache
def _scorer(task: str) -> Callable:
    import reasoning_gym

    return reasoning_gym.get_score_answer_fn(task)


def equal(answer: str, gold: str) -> float:
    """The package's score, in [0, 1], of an answer to an entry that `Maker` made."""
    task, entry = pickle.loads(base64.b64decode(gold))
    score = float(_scorer(task)(answer, entry))
    return min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0


class Maker:
    """Datasets of the package, one for each task and level, and how far each has been read."""

    def __init__(self, tasks: list[str], seed: int):
        from reasoning_gym.factory import CURRICULA, DATASETS

        self.levels = {}  # of each task; 0: it has no curriculum
        for task in tasks:
            if task not in DATASETS:
                hint = near(task, DATASETS) or "such as " + ", ".join(list(DATASETS)[1:6])
                raise UserError(f"config.data.name: reasoning-gym has no task {task!r}; {hint.strip()}")
            attributes = CURRICULA[task]().attributes.values() if task in CURRICULA else ()
            self.levels[task] = max((len(attribute.levels) for attribute in attributes), default=0)
        self._seed, self._datasets, self._read = seed, {}, {}

    def _dataset(self, task: str, level: int):
        from reasoning_gym.coaching.base_curriculum import DefaultCurriculumContext, RangeAttributeMode
        from reasoning_gym.factory import CURRICULA, DATASETS

        dataset, config = DATASETS[task]
        seed = zlib.crc32(f"{self._seed} {task} {level}".encode()) >> 1
        fields = {"seed": seed, "size": MOST}
        if not self.levels[task]:
            return dataset(config(**fields))
        curriculum = CURRICULA[task]()
        curriculum.set_global_level(level - 1)
        only_this = DefaultCurriculumContext(mode=RangeAttributeMode.UPPER_BOUND)
        return dataset(curriculum.generate_configuration(fields, only_this))

    def next(self, task: str, level: int) -> dict:
        """The next entry: `text`, `answer`, `index`, and `entry` for the scorer; `end` or `miss`: why there is none."""
        key, kind, why = (task, level), "end", "its configuration is refused"
        try:
            if key not in self._datasets:
                self._datasets[key] = self._dataset(task, level)
            kind, why = "miss", "an entry cannot be made"
            index = self._read[key] = self._read.get(key, -1) + 1
            if index >= MOST:
                return {"end": f"more than {MOST:,} entries"}
            entry = self._datasets[key][index]
            packed = base64.b64encode(pickle.dumps((task, entry))).decode()
        except TimeoutError:
            return {"end": f"an entry takes more than {SECONDS} seconds"}
        except Exception as error:  # of the package, many kinds
            return {kind: f"{why} ({first_line(error)[:60]})"}
        return {"text": entry["question"], "answer": str(entry["answer"] or ""), "index": index, "entry": packed}


def main(tasks: str, seed: str) -> None:
    """Answers lines until stdin closes."""

    def late(*_):
        raise TimeoutError

    signal.signal(signal.SIGPROF, late)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # what a task prints must not reach the parent
    try:
        maker = Maker(tasks.split(","), int(seed))
        print(json.dumps({"levels": maker.levels}), file=replies, flush=True)
    except Exception as error:  # the user's, or whatever keeps the package from being loaded
        why = str(error) if isinstance(error, UserError) else f"reasoning-gym cannot be loaded: {first_line(error)}"
        return print(json.dumps({"error": why}), file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        reply = maker.next(*json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
