"""How well a run predicted difficulty: `python -m dots_jax.explore WORKDIR ...`; `Run` is for notebooks."""

import sys

from dots_jax.analysis import tables
from dots_jax.analysis.rounds import PredictedRound, Run
from dots_jax.core import command_line
from dots_jax.core.errors import UserError

__all__ = ["PredictedRound", "Run"]

COLUMNS = (
    *(f"uniform_{name}" for name in ("pearson", "spearman", "mae", "calibration", "precision")),
    "references_pearson",
    "pearson",
)
LEGEND = """\
Mean ± deviation over runs. Difficulty as predicted in each round against what was measured after it, all rounds but the
first together. uniform: the next round's references, drawn uniformly, that had never been measured before; references:
all of these; the last column: every question never measured before, most of them trained on and chosen to be alike.
Each predictor has the same labels; raw attention and ridge have their best setting in hindsight. (The report
averages instead what metrics.jsonl says of each round, a Pearson of few questions.)
"""


HELP = """\
Prints how well difficulty was predicted, beside simpler predictors: a Markdown table.

usage: python -m dots_jax.explore WORKDIR ...    (of runs whose selector predicts difficulty)
"""


def explore(workdirs: list[str]) -> None:
    """Prints for each predictor mean and deviation over the runs. Raises UserError."""
    if not workdirs or workdirs[0].startswith("-"):
        raise UserError("name at least one workdir; --help shows how")
    runs = [Run(workdir).compare() for workdir in workdirs]
    rows = [[name, *(tables.spread([run[name][c] for run in runs], "{:.3f}") for c in COLUMNS)] for name in runs[0]]
    print(tables.markdown_table(["", *COLUMNS], rows), LEGEND, sep="\n", end="")


def main(argv: list[str] | None = None) -> int:
    """Runs `explore` as the command line says; returns the exit code."""
    return command_line.run_words(explore, HELP, argv)


if __name__ == "__main__":
    sys.exit(main())
