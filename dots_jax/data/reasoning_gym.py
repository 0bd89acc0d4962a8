"""Pools of the package reasoning-gym: its tasks at every level of their curricula, which is their difficulty."""

import json
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence

import numpy as np
from ml_collections import ConfigDict

from dots_jax.core.errors import UserError
from dots_jax.data import procedural, sources
from dots_jax.data.procedural import Cell
from dots_jax.data.questions import Questions
from dots_jax.reward import mathematics, reasoning_gym

PREFIX = "reasoning_gym:"
PATIENCE = 50  # entries in a row that are known, too long or cannot be made, after which a level counts as exhausted


def load(data: ConfigDict, count_tokens: Callable[[Sequence[str]], Sequence[int]]) -> tuple[Questions, Questions]:
    """The pool of the tasks that `data.name` lists, and other entries as held-out set, in equal shares of all levels.

    Families are tasks. A label is a level as a share of its task's levels, NaN for a task without any; `columns` hold
    the entry for the reward. Left out are entries with more than `data.max_prompt_tokens` tokens. The same in every
    process. Raises UserError where the package is not installed, has no such task, or too few entries.
    """
    reasoning_gym.check(f"data.name={data.name}")
    tasks = list(dict.fromkeys(sources.names(data.name.removeprefix(PREFIX))))
    if not tasks or not data.num_questions:
        raise UserError(f"config.data.name={data.name} and num_questions={data.num_questions}: give tasks and a number")
    command = [sys.executable, "-m", reasoning_gym.MODULE, ",".join(tasks), str(data.seed)]
    env = mathematics.environment() | {"PYTHONHASHSEED": "0"}  # some tasks go by the order of a set
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes, env=env, text=True) as process:
        ended = {}

        def ask(*request) -> dict:
            if request:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
            reply = process.stdout.readline()
            if not reply:
                raise UserError(f"reasoning-gym fails at {request or data.name}; try other tasks of it")
            return json.loads(reply)

        def draw(generator: np.random.Generator, cell: Cell, seen: Collection[str]) -> tuple | None:
            for _ in range(PATIENCE):
                entry = ask(*cell)
                ended[cell] = entry.get("end") or entry.get("miss") or "its entries repeat, or are too long"
                if "end" in entry:
                    return None
                text = entry.get("text")
                if text and text not in seen and count_tokens([text])[0] <= data.max_prompt_tokens:
                    del ended[cell]
                    return text, entry["answer"], entry["index"], {"entry": entry["entry"]}
            return None

        levels = ask()
        if "error" in levels:
            raise UserError(levels["error"])
        levels = levels["levels"]
        cells = [(task, level) for task in tasks for level in range(1, max(1, levels[task]) + 1)]
        sets = procedural.shares(data.name, cells, draw, (data.num_heldout, data.num_questions), data.seed)
        process.stdin.close()

    def questions(rows: list, left_out: tuple = ()) -> Questions:
        entries, of = zip(*rows, strict=True)
        texts, answers, indices, columns = zip(*entries, strict=True)
        labels = [level / levels[task] if levels[task] else np.nan for task, level in of]
        return Questions(
            texts=texts,
            answers=answers,
            families=tuple(task for task, _ in of),
            levels=np.array([level for _, level in of], np.int32),
            labels=np.array(labels, np.float32),
            names=tuple(f"{task}:{level}:{i}" for (task, level), i in zip(of, indices, strict=True)),
            left_out=left_out,
            columns=columns,
        )

    left_out = tuple((f"{task}:{level}", f"ended: {why}") for (task, level), why in sorted(ended.items()))
    return questions(sets[1], left_out), questions(sets[0])
