"""Parts of a run that a config names: by a short name, as `module:name`, or as `FILE.py:name` of a user's own file."""

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dots_jax.core.errors import UserError, first_line, near

AGAIN = "mend it, and start in another --workdir"  # what to do about a part that fails within a run
FOLDERS = [""]  # where files are looked for: here, and beside the config once that is loaded


def find(name: str, short_names: Mapping[str, str], field: str, test: Callable[[Any], bool], expected: str) -> Any:
    """The object that the config's `field` names; `short_names` holds `module:name` of the short names.

    Raises UserError where there is none, its module cannot be loaded, or it does not pass the `test` for what is
    `expected`.
    """
    module, colon, attribute = short_names.get(name, name).rpartition(":")
    if not colon or not module or not attribute.isidentifier():
        raise UserError(
            f"config.{field}={name!r}: {near(name, short_names)}give one of {', '.join(short_names)}, "
            "or your own as MODULE:NAME or FILE.py:NAME"
        )
    file = path(name, short_names, field)
    with guarded(f"config.{field}={name}: {module} cannot be loaded"):
        loaded = _file(file) if file else importlib.import_module(module)
    _files.add(os.path.abspath(getattr(loaded, "__file__", None) or ""))
    if not hasattr(loaded, attribute):
        hint = near(attribute, vars(loaded)).strip()
        raise UserError(f"config.{field}={name}: {module} has no {attribute}{hint and '; '}{hint}")
    value = getattr(loaded, attribute)
    if not test(value):
        raise UserError(f"config.{field}={name}: {attribute} is not {expected}")
    return value


def path(name: str, short_names: Mapping[str, str], field: str) -> str:
    """The file of a `FILE.py:name`, "" for other names. Raises UserError where there is none."""
    module = short_names.get(name, name).rpartition(":")[0]
    if not module.endswith(".py"):
        return ""
    for folder in FOLDERS:
        if os.path.isfile(file := os.path.join(folder, module)):
            return os.path.abspath(file)
    raise UserError(f"config.{field}={name}: no file {module} here or beside the config")


@contextlib.contextmanager
def guarded(what: str, code: Any = None) -> Iterator[None]:
    """Makes of whatever a user's own code raises one line: `what` happened, why, and where in his file.

    With `code`, a class or function, of this package: what it raises is ours to mend, and passes.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if getattr(code, "__module__", "").startswith("dots_jax."):
            raise
        raise UserError(f"{what} ({first_line(error, typed=True)}{place(error)})") from error


def place(error: Exception) -> str:
    """`, FILE.py line N` where a user's own code has raised it; "" where none has."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if os.path.abspath(frame.filename) in _files]
    return f", {os.path.basename(own[-1].filename)} line {own[-1].lineno}" if own else ""


_files: set[str] = set()  # that have been loaded


@functools.cache
def _file(path: str):
    """A user's file as a module, loaded once; what lies beside it can be imported there."""
    name = "dots_jax_user_" + os.path.basename(path).removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    _files.add(os.path.abspath(path))
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.append(folder)
    spec.loader.exec_module(module)
    return module
