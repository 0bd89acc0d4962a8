"""What a run has measured: three files of JSON lines, from which all else is drawn."""

import json
import os
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from dots_jax.core import files, rules
from dots_jax.core.errors import UserError

FILE = "metrics.jsonl"
GROUPS = "groups.jsonl"
COMPLETIONS = "completions.jsonl"


class Lines:
    """A file of JSON objects, appended to in the order of steps; nothing is created before `write`."""

    sum = 0  # of the lines; see `sums`

    def __init__(self, path: str):
        self._path, self._file = path, None

    def restart(self, rows: list[dict]) -> None:
        """Leaves these rows alone of those that are there; call it before `write` when a run continues."""
        if os.path.exists(self._path):
            text = "".join(_line(files.plain(row)) for row in rows)
            files.write_text(self._path, text)
            self.sum = zlib.crc32(text.encode())

    def write(self, step: int, values: dict) -> dict:
        """Appends `values` of `step` and returns them as written, with the step.

        Numbers, strings, numpy and jax arrays, and lists and dictionaries of them; NaN and infinities become null.
        """
        row = {"step": int(step)} | {name: files.plain(value) for name, value in values.items()}
        if self._file is None:
            os.makedirs(os.path.dirname(self._path) or ".", exist_ok=True)
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        line = _line(row)
        self._file.write(line)
        self._file.flush()
        self.sum = zlib.crc32(line.encode(), self.sum)
        return row

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Metrics(Lines):
    """The lines of `workdir/metrics.jsonl`; their scalars go to `mirrors` too, of `run.mirrors`."""

    def __init__(self, workdir: str, mirrors: Sequence = ()):
        super().__init__(os.path.join(workdir, FILE))
        self._mirrors = mirrors

    def restart(self, rows: list[dict]) -> None:
        """As `Lines.restart`."""
        super().restart(rows)
        for mirror in self._mirrors:
            mirror.start(rows[-1]["step"] + 1 if rows else 0)

    def write(self, step: int, values: dict) -> dict:
        """As `Lines.write`."""
        row = super().write(step, values)
        scalars = {name: value for name, value in row.items() if isinstance(value, int | float) and name != "step"}
        for mirror in self._mirrors:
            mirror.write(row["step"], scalars)
        return row

    def close(self) -> None:
        """Closes all."""
        super().close()
        for mirror in self._mirrors:
            mirror.close()


def read(
    workdir: str, name: str = FILE, key: str = "step", kinds: Mapping[str, rules.Rule] | None = None
) -> list[dict]:
    """The complete lines of `workdir/name`, a dictionary with a number `key` each; empty if there is no such file.

    With `kinds` of values all lines but the last, which may be torn, must be whole and have them. Raises UserError.
    """
    path = os.path.join(workdir, name)
    if not os.path.exists(path):
        return []
    rows = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = files.parse(line) if line.endswith("\n") else None
            except ValueError:
                row = None
            if not isinstance(row, dict) or key not in row or (not kinds and rules.whole()(row[key])):
                if kinds and next(file, None):
                    raise UserError(f"line {number} of {path} is no JSON object with a {key!r}; mend or remove it")
                break  # torn by a kill; whatever follows is not to be trusted
            rules.check_row(row, kinds or {}, f"line {number} of {path}")
            rows.append(row)
    return rows


def past(workdir: str) -> dict[str, list[dict]]:
    """The lines that a run has left in the files that it continues from."""
    return {name: read(workdir, name) for name in (FILE, GROUPS)}


def sums(rows: list[dict]) -> dict[int, int]:
    """Step -> CRC-32 of a file's lines up to it, for as long as no step is missing."""
    by_step, total = {}, 0
    for row in rows:
        if by_step and row["step"] != next(reversed(by_step)) + 1:
            break
        total = zlib.crc32(_line(files.plain(row)).encode(), total)
        by_step[row["step"]] = total
    return by_step


def series(rows: list[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the rows in which `key` is a number."""
    points = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.asarray(steps, float), np.asarray(values, float)


def running_mean(values: np.ndarray) -> np.ndarray:
    """Of each value and those before it, over a twentieth of them all but at least three."""
    sums, last = np.cumsum(np.insert(values, 0, 0.0)), np.arange(1, values.size + 1)
    first = np.maximum(last - max(3, values.size // 20), 0)
    return (sums[last] - sums[first]) / (last - first)


def _line(row: dict) -> str:
    return json.dumps(row, allow_nan=False, separators=(",", ":")) + "\n"
