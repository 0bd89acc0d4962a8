"""Files: written whole or not at all, and JSON whose values are checked where it is read."""

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from dots_jax.core.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # the checkout
LARGEST = 2**31 - 1  # whole number: indices on devices have 32 bits


def write_text(path: str, text: str) -> None:
    """Writes a file and returns when it is on disk."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def replace(path: str, write) -> None:
    """Calls `write` with a path beside `path` and renames, so that a reader never sees half a file."""
    partial = f"{path}.{os.getpid()}.partial"  # of this process: others may write the same file
    try:
        write(partial)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise


def plain(value):
    """`value` as JSON can hold it: numpy and jax arrays as lists, NaN and infinities as None."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    value = np.asarray(value)
    if value.ndim:
        return [plain(part) for part in value]
    # float32 in its own shortest digits: as a double it would show nine more
    value = float(str(value)) if value.dtype == np.float32 else value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Kind(NamedTuple):
    """What a value of a row of JSON can be."""

    test: Callable[[Any], bool]
    wanted: str


def whole(low: int = 0, high: int = LARGEST) -> Kind:
    """A whole number."""
    wanted = f"a whole number of at least {low}" if high == LARGEST else f"a whole number from {low:,} to {high:,}"
    return Kind(lambda x: is_whole(x) and low <= x <= high, wanted)


def number(low: float = -1e30, high: float = 1e30) -> Kind:
    """A finite number."""
    return Kind(lambda x: is_number(x) and low <= x <= high, f"a number from {low:g} to {high:g}")


def one_of(names, wanted: str) -> Kind:
    """One of some texts."""
    return Kind(lambda x: isinstance(x, str) and x in names, wanted)


def some(kind: Kind, length: int | None = None) -> Kind:
    """A list of `length` values of one kind."""
    return Kind(
        lambda x: isinstance(x, list) and length in (None, len(x)) and all(map(kind.test, x)),
        f"a list{'' if length is None else f' of {length}'}, each {kind.wanted}",
    )


def optional(kind: Kind) -> Kind:
    """A value of that kind, or null, or absent."""
    return Kind(lambda x: x is None or kind.test(x), f"{kind.wanted}, or null")


TEXT = Kind(lambda x: isinstance(x, str), "text")
FLAG = Kind(lambda x: isinstance(x, bool), "true or false")


def check_row(row: Mapping, kinds: Mapping[str, Kind], where: str) -> None:
    """Raises UserError at the first of `kinds` of which the row has a value of another kind, or none."""
    for name, kind in kinds.items():
        if not kind.test(row.get(name)):
            found = f"{shortened(row[name])}, not" if name in row else "missing; it must be"
            raise UserError(f"{where}: {name!r} is {found} {kind.wanted}; mend or remove it")


def parse(text: str):
    """The value of JSON `text`. Raises ValueError for whatever it is instead, also where it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: str | os.PathLike) -> dict:
    """The JSON object in a file. Raises UserError where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            found = parse(file.read())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not JSON ({str(error).splitlines()[0]}); copy the file again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is not JSON of an object, but of {type(found).__name__}; copy the file again")
    return found


def shortened(value) -> str:
    """How a value is shown in an error."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = "a very long number"
    return text if len(text) <= 40 else f"{text[:37]}..."


def is_whole(value) -> bool:
    """A whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value) -> bool:
    """A number that float32 holds, with room for what is computed from it."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e30
