"""Tables of a comparison, in Markdown."""

import itertools
import math
import statistics

from dots_jax.analysis.compare import COSTS, NONE
from dots_jax.core.text import short
from dots_jax.run.ledger import PHASES

_CLAIMS = {
    "waste": "waste",
    "tokens": "tokens saved",
    "seconds": "seconds saved",
    "h100": "saved as on an H100",
    "accuracy": "final accuracy",
}
DEFINITIONS = """\
Target: the mean over seeds of the baseline's last held-out accuracy. A run reaches it at its first evaluation with at
least that accuracy, the baseline's runs too; nothing is interpolated, and a run that never does counts as infinite.
Cells: median (least..most) over seeds; saved: the same, of the baseline's median. Tokens: sampled ones, reference
rollouts counted; seconds: without compilation and evaluation; what an oracle measures is in neither ("cost_excluded").
±: standard deviation over seeds, of the difference the standard error over the seeds that both methods have, at the
last evaluation that these runs share. At equal tokens: interpolated between evaluations, at what the cheapest run
generated in all; less baseline's with the standard error over common seeds. Useful groups: mean over all steps;
waste: silent groups, rolled out and without a gradient, references and discarded ones too, for 1,000 generated tokens;
saved: median over seeds of 1 - cost / baseline's cost, its interval by order; of a baseline's run that never reaches
the target all that it has cost counts, a lower bound; as on an H100: predicted seconds for the tokens generated,
trained on and scored, by rates measured with 1.5B parameters (benchmarks/README.md). "Cannot tell": the interval holds
zero. Pearson: mean over selection rounds.
"""


def markdown(report: dict, command: str) -> str:
    """The tables, their definitions and the command that made them."""
    baseline, methods = report["baseline"], report["methods"]
    ends, equal, savings, phases, claims = [], [], [], [], []
    for label, m in methods.items():
        ends.append(
            [
                label,
                f"{len(m['seeds'])}" + (f" ({m['running']} not finished)" if m["running"] else ""),
                "..".join(str(n) for n in sorted({min(m["steps"]), max(m["steps"])})),
                spread(m["accuracy"], "{:.3f}"),
                NONE if label == baseline else _signed(m["difference"]),
                f"{m['difference']['seeds']}, step {m['difference']['step']}",
                spread(m["useful_groups"], "{:.3f}"),
                spread(m["tokens"], "{:,.0f}"),
                spread(m["tokens_by_phase"]["reference"], "{:,.0f}"),
                spread(m["pearson"], "{:.2f}"),
                spread(m["reference_pearson"], "{:.2f}"),
            ]
        )
        equal.append(
            [
                label,
                spread(m["at_budget"], "{:.3f}"),
                NONE if label == baseline else _signed(m["difference_at_budget"]),
                f"{m['difference_at_budget']['seeds']}",
            ]
        )
        cells = [_saving(m["reached"][name], methods[baseline]["reached"][name]) for name in COSTS]
        count = sum(map(math.isfinite, m["reached"]["steps"]))
        savings.append([label, f"{count} of {len(m['seeds'])}", *itertools.chain(*cells)])
        if label != baseline:
            claims.append([label, *(_claim(name, m["claims"][name]) for name in m["claims"])])
        phases.append([label, *(spread(m["seconds_by_phase"][phase], "{:.0f}") for phase in PHASES)])
    head = ["method", "seeds", "steps", "final accuracy", "less baseline's", "pairs", "useful groups", "tokens"]
    return (
        markdown_table([*head, "of them reference", "Pearson, trained on", "Pearson, references"], ends)
        + f"\nAt equal tokens, {short(report['budget'])} generated:\n\n"
        + markdown_table(["method", "accuracy", "less baseline's", "pairs"], equal)
        + f"\nTo reach the baseline's ({baseline}) final accuracy, {report['target']:.4f}:\n\n"
        + markdown_table(["method", "reach it", "steps", "saved", "tokens", "saved", "seconds", "saved"], savings)
        + f"\nThree claims, against {baseline} of the same seeds, each with its 95% interval:\n\n"
        + markdown_table(["method", *_CLAIMS.values()], claims)
        + "\nSeconds of a whole run by phase:\n\n"
        + markdown_table(["method", *PHASES], phases)
        + f"\n{DEFINITIONS}\n    {command}\n"
    )


def _claim(name: str, found: dict) -> str:
    """An estimate, its interval, and whether that holds zero."""
    value, low, high = (found[key] for key in ("value", "low", "high"))
    if not found["seeds"] or math.isnan(value):
        return NONE
    form = {"waste": "{:+.2f}", "accuracy": "{:+.3f}"}.get(name, "{:.0%}")
    value, *ends = ("never" if x == -math.inf else form.format(x) for x in (value, low, high))
    if math.isnan(low):
        return f"{value}, {found['seeds']} seed{'s' * (found['seeds'] > 1)}: no interval"
    return f"{value} [{ends[0]}, {ends[1]}]" + (", cannot tell" if low <= 0 <= high else "")


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n" for cells in lines)


def _signed(difference: dict) -> str:
    """A mean difference ± its standard error."""
    if not difference["seeds"] or math.isnan(difference["mean"]):
        return NONE
    return f"{difference['mean']:+.3f} ± {difference['standard_error']:.3f}".replace(" ± nan", "")


def spread(values: list[float], form: str) -> str:
    """Mean ± standard deviation of those that were measured."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return NONE
    mean = form.format(statistics.fmean(values))
    return f"{mean} ± {form.format(statistics.stdev(values))}" if len(values) > 1 else mean


def _saving(values: list[float], baseline: list[float]) -> tuple[str, str]:
    """Median with least and most, and what these save of the baseline's median."""
    if math.isnan(sum(values)):
        return NONE, NONE
    whole, middle, least, most = statistics.median(baseline), statistics.median(values), min(values), max(values)
    costs = _range(*(short(value) if value < math.inf else "∞" for value in (middle, least, most)))
    if not 0 < whole < math.inf:
        return costs, NONE
    saved = (1 - value / whole if value < math.inf else None for value in (middle, most, least))
    return costs, _range(*("never" if share is None else f"{share:.0%}" for share in saved))


def _range(middle: str, first: str, last: str) -> str:
    return middle if first == last else f"{middle} ({first}..{last})"
