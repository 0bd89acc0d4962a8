"""Files: written whole or not at all; and JSON."""

import contextlib
import json
import math
import os

import numpy as np

from dots_jax.core.errors import UserError, first_line

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # the checkout


def replace(path: str, write) -> None:
    """Calls `write` with a path beside `path` and renames, so that a reader never sees half a file.

    The file may be read by whom the umask lets, whatever `write` thinks of that.
    """
    partial = f"{path}.{os.getpid()}.partial"  # of this process: others may write the same file
    try:
        write(partial)
        os.umask(mask := os.umask(0))
        os.chmod(partial, 0o666 & ~mask)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise


def write_text(path: str, text: str) -> None:
    """Writes a file, whole or not at all, and returns when it is on disk."""

    def write(partial):
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    replace(path, write)


def plain(value):
    """`value` as JSON can hold it: numpy and jax arrays as lists, NaN and infinities as None."""
    if isinstance(value, str | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
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
            value = parse(file.read())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not JSON ({first_line(error)}); copy the file again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not JSON of an object, but of {type(value).__name__}; copy the file again")
    return value
