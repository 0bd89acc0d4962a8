"""Compares runs: `python -m dots_jax.report [LABEL=]WORKDIR ...`."""

import json
import os
import shlex
import sys

from dots_jax.analysis import compare, figures, tables
from dots_jax.core import files
from dots_jax.core.errors import UserError, exit_code

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


def main(argv: list[str] | None = None) -> int:
    """Writes the report and prints its tables; returns the exit code, 2 for the user's mistake, one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        print(HELP, end="")
        return 0

    def program():
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
        report = compare.compare(methods, flags["--baseline"])
        text = tables.markdown(report, f"python -m dots_jax.report {shlex.join(argv)}")
        os.makedirs(flags["--out"], exist_ok=True)
        paths = [os.path.join(flags["--out"], f"report.{kind}") for kind in ("md", "json", "png")]
        files.write_text(paths[0], text)
        files.write_text(paths[1], json.dumps(files.plain(report), indent=1))
        figures.draw(methods, report, paths[-1])
        print(text, *paths, sep="\n")

    return exit_code(program)


if __name__ == "__main__":
    sys.exit(main())
