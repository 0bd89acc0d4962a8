"""Writes the run page: `python -m dots_jax.page WORKDIR`."""

import sys

from dots_jax.core import command_line
from dots_jax.core.errors import UserError

HELP = """\
Shows a run of dots_jax.main as one HTML file, which works by itself, offline: curves, a map of questions and steps,
each question's history with the completions that were kept, predicted difficulty against measured, the evaluations.

usage: python -m dots_jax.page WORKDIR ...    (finished, still going or ended; writes WORKDIR/page.html)
"""


def pages(workdirs: list[str]) -> None:
    """Writes the page of each workdir and prints its path. Raises UserError."""
    if not workdirs or workdirs[0].startswith("-"):
        raise UserError("name at least one workdir; --help shows how")
    from dots_jax.run import page  # imports jax: wrong flags are reported before

    for workdir in workdirs:
        print(page.write(workdir))


def main(argv: list[str] | None = None) -> int:
    """Runs `pages` as the command line says; returns the exit code."""
    return command_line.run_words(pages, HELP, argv)


if __name__ == "__main__":
    sys.exit(main())
