"""Compares runs: `python -m dots_jax.report [LABEL=]WORKDIR ...`."""

import json
import os
import shlex
import sys

from dots_jax.analysis import compare, figures, tables
from dots_jax.core import command_line, files
from dots_jax.core.errors import UserError

HELP = """\
Compares runs: a picture, a table and the numbers behind them.

usage: python -m dots_jax.report [LABEL=]WORKDIR ... [--out=DIR] [--baseline=LABEL]

  WORKDIR           of a run, finished or not; runs that differ only in config.seed are one method
  LABEL=WORKDIR     names the run's method; otherwise its name is made of what tells it from the others
  --out=DIR         where report.md, report.png and report.json are written (default: runs/report)
  --baseline=LABEL  the method to compare with (default: the first that selects uniformly and does not
                    replay, else the first)

example:
  python -m dots_jax.report runs/uniform-* runs/dots-* --out=runs/report
"""


def report(argv: list[str]) -> None:
    """Writes the report and prints its tables. Raises UserError."""
    flags = {"--out": os.path.join("runs", "report"), "--baseline": ""}
    for arg in (arg for arg in argv if arg.startswith("-")):
        name, _, value = arg.partition("=")
        if name not in flags or not value:
            raise UserError(f"{arg}: no such flag, or no value (--out=DIR, --baseline=LABEL); --help shows all")
        flags[name] = value
    workdirs = [arg for arg in argv if not arg.startswith("-")]
    if not workdirs:
        raise UserError("name at least one workdir; --help shows how")
    methods = compare.group([compare.load(arg) for arg in workdirs])
    numbers = compare.compare(methods, flags["--baseline"])
    text = tables.markdown(numbers, f"python -m dots_jax.report {shlex.join(argv)}")
    os.makedirs(flags["--out"], exist_ok=True)
    paths = [os.path.join(flags["--out"], f"report.{kind}") for kind in ("md", "json", "png")]
    files.write_text(paths[0], text)
    files.write_text(paths[1], json.dumps(files.plain(numbers), indent=1))
    figures.draw(methods, numbers, paths[-1])
    print(text, *paths, sep="\n")


def main(argv: list[str] | None = None) -> int:
    """Runs `report` as the command line says; returns the exit code."""
    return command_line.run_words(report, HELP, argv)


if __name__ == "__main__":
    sys.exit(main())
