"""Errors that a user can mend, and how a program ends with one: in a line."""

import _thread
import difflib
import errno
import functools
import os
import select
import sys
import threading
from collections.abc import Callable, Iterable


class UserError(Exception):
    """A mistake that the user can mend; its text is one clear line."""


def tell(message: object, kind: str = "error") -> None:
    """Prints a message in one line to stderr, in place of a bar that may stand there."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{clear}{kind}: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


def first_line(error: Exception, typed: bool = False) -> str:
    """The first line of an error's text, its type before it where `typed`, or alone where there is no text."""
    line, name = (str(error).strip().splitlines() or [""])[0].rstrip(".")[:150], type(error).__name__
    return f"{name}: {line}" if typed and line else line or name


def near(name: str, names: Iterable[str], form: str = "{}", cutoff: float = 0.6) -> str:
    """`did you mean NAME? ` for the nearest of the names, in its form; "" where none is near."""
    nearest = difflib.get_close_matches(name, list(names), 1, cutoff)
    return f"did you mean {form.format(nearest[0])}? " if nearest else ""


def no_room(error: Exception) -> bool:
    """Whether the system says that a disk, a quota or a file is full; libraries hand on no more than its words."""
    return any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def exit_code(function: Callable[[], int | None], where: Callable[[], str] = str, interrupted: str = "") -> int:
    """Calls a program and returns its exit code.

    That is what it returns, or 0; 2: the user's mistake, one line on stderr; 130: interrupted; 141: what read its
    output has ended. Other exceptions pass. `where` says what an error of the system is about that names no file,
    `interrupted` what becomes of a program that was.
    """
    show = sys.unraisablehook
    sys.unraisablehook = functools.partial(_repeat, show)
    try:
        try:
            code = function() or 0
            flush()
            return code
        finally:
            unread = _silence_unread()  # what is said below must not fail in turn
    except UserError as error:
        tell(error)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted{interrupted}", file=sys.stderr)
        return 130
    except OSError as error:  # a full disk, a file where a directory should be
        if unread and isinstance(error, BrokenPipeError):  # `| head` has seen enough
            print(f"what read the output has ended{interrupted}", file=sys.stderr)
            return 141
        mend = "make room, then the same command continues" if no_room(error) else "mend that, or name another place"
        tell(f"cannot read or write {error.filename or where() or 'the output'}: {error.strerror or error}; {mend}")
        return 2
    finally:
        sys.unraisablehook = show


def flush() -> None:
    """Writes what stdout and stderr still hold; one that is closed holds nothing."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()


def _silence_unread() -> bool:
    """Has stdout and stderr write to nowhere where they are pipes that nobody reads any more; whether one was."""
    poller = select.poll()
    for fd in (1, 2):
        poller.register(fd, 0)
    unread = [fd for fd, event in poller.poll(0) if event & select.POLLERR]
    for fd in unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
    return bool(unread)


def quiet_interrupts() -> None:
    """Makes Ctrl-C a single line while a program still imports what it needs."""
    show = sys.excepthook

    def hook(kind, error, trace):
        cause = error
        while cause and not isinstance(cause, KeyboardInterrupt):  # of an import that failed for it
            cause = cause.__cause__ or cause.__context__
        print("interrupted", file=sys.stderr) if cause else show(kind, error, trace)

    sys.excepthook = hook
    sys.unraisablehook = functools.partial(_repeat, sys.unraisablehook)


def _repeat(show: Callable, error) -> None:
    """Has a Ctrl-C come again that met code in which Python ignores errors, such as JAX's garbage collection."""
    if isinstance(error.exc_value, KeyboardInterrupt):
        threading.Timer(0.05, _thread.interrupt_main).start()  # at once it would meet this hook
    else:
        show(error)
