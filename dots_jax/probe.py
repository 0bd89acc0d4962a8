"""Before a run: `python -m dots_jax.probe --config=FILE`: how hard a policy finds a pool, what a step would cost."""

import json
import os
import re
from typing import Any

import jax
import numpy as np
from absl import flags

from dots_jax import experiment, learner, selection
from dots_jax.analysis import outlook
from dots_jax.analysis.outlook import Beliefs
from dots_jax.core import command_line, fields, files, picture, sharding, text
from dots_jax.core.errors import UserError
from dots_jax.core.rng import Purpose
from dots_jax.experiment import Experiment, GradedGroups, RunState
from dots_jax.plan import program
from dots_jax.run.workdir import Claim
from dots_jax.selection import draw

HELP = """\
Rolls out a few questions of a run's pool, predicts all others, and says what the run can expect: how many groups would
be silent, which questions and which G would pay, what a step takes. Trains nothing that is kept.

usage: python -m dots_jax.probe [--config=FILE[:ARG]] [--questions=M] [--keep=LOW-HIGH] [--workdir=DIR]
                                [--config.FIELD=VALUE ...]

  --config=FILE[:ARG]     the run's config (default: {default}); its fields can be set as for a run
  --questions=M           how many are rolled out, drawn uniformly (default: selection.references, at least 64)
  --keep=LOW-HIGH         success rates of the rolled-out questions that kept.jsonl takes (default: 0.2-0.8)
  --workdir=DIR           everything is written to DIR/probe (default: runs/<name of the config>)
  --compilation_cache=DIR|off
                          where compiled programs are kept (default: dots_jax/compiled in the user's cache)

In DIR/probe: probe.json and probe.png; questions.jsonl, every question with its predicted success rate and, of those
rolled out, the measured one; kept.jsonl, the measured within --keep: --config.data.name=DIR/probe/kept.jsonl.
"""
FOLDER = "probe"


def probe(config, workdir: str, questions: int = 0, keep: tuple[float, float] = (0.2, 0.8)) -> dict[str, Any]:
    """Prints and writes to `workdir/probe` what the policy and the pool of a run's config promise; returns the numbers.

    Raises UserError as a run would.
    """
    directory = os.path.join(workdir, FOLDER)
    with Claim(directory) as claim:
        exp, state = experiment.load(_config(config), directory, claim)
        claim.take()
        try:
            groups = _measure(exp, state, questions, config.selection.references)
        finally:
            exp.grader.close()
        G, measured = exp.rollout_spec.group_size, groups.measured(1, is_reference=True)
        beliefs, chosen = _choices(exp, measured, config.train.batch_size)

        def predict(rest: np.ndarray) -> Beliefs:
            part = selection.Measured(groups.ids[rest], measured.successes[rest], G, measured.tokens[rest], 1, True)
            return _propose(exp, exp.selector, part, 1)[0]

        parts = [f"{family} {level}" for family, level in zip(exp.pool.families, exp.pool.levels, strict=True)]
        results = {
            "questions": len(exp.pool),
            "measured": len(groups.ids),
            "group_size": G,
            "success": measured.rate.mean(),
            "graded": bool((groups.rewards % 1 != 0).any()),
            "silent_measured": 1 - measured.mixed.mean(),
            "silent": outlook.silent(beliefs, chosen, G),
            "left_out": outlook.left_out(predict, groups.ids, measured.rate, G),
            "useful_per_1000": outlook.by_group_size(beliefs, chosen),
            "histogram": np.histogram(beliefs.mean, outlook.BINS, (0, 1))[0],
            "histogram_measured": np.histogram(measured.rate, outlook.BINS, (0, 1))[0],
            "parts": outlook.by_part(beliefs, parts, G),
            "kept": int(((measured.rate >= keep[0]) & (measured.rate <= keep[1])).sum()),
            "step": _step(exp, state, groups, config),
        }
        _write(exp, results, measured, beliefs, keep, directory)
    return results


def _config(config):
    """The run's config, as a probe takes it: nothing is replayed, `Posterior` predicts."""
    changes = {
        "selection.name": "posterior",
        "selection.head": "kernel",
        "selection.per_token": False,
        "selection.policy_features": False,
        "selection.interval": 1,
        "selection.references": 1,  # others are measured
        "selection.reuse_references": 0,
        "replay.fresh_fraction": 1.0,
        "learner.kl_coef": 0.0,
    }
    config = fields.replaced(config, changes)
    if not config.rollout.slots:
        config.rollout.slots = program.slots(config)
    return config


def _measure(exp: Experiment, state: RunState, questions: int, least: int) -> GradedGroups:
    """So many questions of the pool rolled out, drawn uniformly; 0: 64, or `least` if that is more, or all."""
    N = len(exp.pool)
    if questions > N:
        raise UserError(f"--questions={questions} is more than the {N:,} questions of the pool; lower it")
    ids = draw.references(exp.stream(Purpose.SELECTION, 1), N, questions or min(N, max(64, least)))
    print(f"{len(ids):,} of {N:,} questions, {exp.rollout_spec.group_size} completions of each", flush=True)
    return exp.roll_out(state, ids, Purpose.REFERENCE, 1, "reference")


def _choices(exp: Experiment, measured: selection.Measured, count: int) -> tuple[Beliefs, dict[str, np.ndarray]]:
    """What `Posterior` makes of the measured groups, and the `count` questions that it and `Dots` would train on."""
    config = exp.selector.config
    changes = {"selection.name": "dots", "predictor.window": max(len(measured.ids), config.predictor.window)}
    dots = selection.make(fields.replaced(config, changes), exp.selector.context)
    beliefs, ids = _propose(exp, exp.selector, measured, count)
    return beliefs, {"posterior": ids, "dots": _propose(exp, dots, measured, count)[1]}


def _propose(
    exp: Experiment, selector: selection.Selector, measured: selection.Measured, count: int
) -> tuple[Beliefs, np.ndarray]:
    """What a selector makes of the measured groups alone, and the `count` questions that it would train on."""
    state = selector.observe(selector.init(), measured)
    ids, state = selector.propose(state, exp.stream(Purpose.SELECTION, 1), count, 1)
    return Beliefs.of(*selector.predict(state)), ids


def _step(exp: Experiment, state: RunState, groups: GradedGroups, config) -> dict[str, float]:
    """Tokens and seconds of a training step of the run's config on this machine, by the groups measured.

    The update is run once, on as many of these as a step has, without a KL penalty; compilation is in no seconds.
    """
    B, G, tokens = config.train.batch_size, exp.rollout_spec.group_size, float(groups.tokens.mean())
    indices = np.resize(np.arange(len(groups.ids)), B)
    batch = groups.joined(groups, indices)
    step_groups = learner.Groups.fresh(batch.rollouts, batch.rewards, batch.ids, 1, exp.mesh)
    count = jax.device_put(np.int32(B), sharding.replicated(exp.mesh))
    args = exp.key, exp.policy.model_config, exp.update_spec, exp.mesh, exp.replay_spec, None
    with state.ledger.phase("update"):
        jax.block_until_ready(learner.update(state.learner, None, step_groups, count, *args)[2])
    cost = state.ledger.metrics()
    rate = groups.tokens.sum() / cost["ledger/seconds_reference"]
    generated = groups_of_step(config) * G * tokens
    return {
        "tokens_per_completion": tokens,
        "tokens": generated,
        "tokens_per_second": rate,
        "seconds_rollout": generated / rate,
        "seconds_update": cost["ledger/seconds_update"],
        "truncated": 1 - float(groups.rollouts.finished.mean()),
    }


def groups_of_step(config) -> float:
    """Groups that a step of a run generates while it replays, with its share of the references not trained on."""
    selector = selection.find(config.selection.name)
    queries = 0 if selector.cost_excluded else selector.num_queries(config)
    references = max(0, queries - config.selection.reuse_references) / config.selection.interval
    return round(config.replay.fresh_fraction * config.train.batch_size) + references


def _write(
    exp: Experiment, results: dict, measured: selection.Measured, beliefs: Beliefs, keep, directory: str
) -> None:
    rates = dict(zip(measured.ids.tolist(), measured.rate.tolist(), strict=True))
    names = exp.pool.names or [f"{exp.pool.families[i]}:{i}" for i in range(len(exp.pool))]
    rows = [
        dict(exp.questions[i].columns)
        | {"name": names[i], "problem": exp.pool.texts[i], "answer": exp.pool.answers[i], "predicted": round(p, 4)}
        | ({"success_rate": rates[i]} if i in rates else {})
        for i, p in enumerate(beliefs.mean.tolist())
    ]
    kept = [row for row in rows if keep[0] <= row.get("success_rate", -1) <= keep[1]]
    for name, lines in (("questions.jsonl", rows), ("kept.jsonl", kept)):
        content = "".join(json.dumps(line, default=str) + "\n" for line in lines)
        files.write_text(os.path.join(directory, name), content)
    files.write_text(os.path.join(directory, "probe.json"), json.dumps(files.plain(results), indent=1))
    _draw(results, os.path.join(directory, "probe.png"))
    print(f"\n{report(results, keep)}\n{directory}: probe.json, probe.png, questions.jsonl, kept.jsonl")


def report(results: dict, keep: tuple[float, float] = (0.2, 0.8)) -> str:
    """The numbers of `probe` in at most 100 columns."""
    r, step = results, results["step"]
    names = list(r["silent"])
    lines = [
        f"success rate {r['success']:.3f}; {r['silent_measured']:.0%} of the groups of {r['group_size']} are silent",
        f"{r['kept']} of {r['measured']} questions succeed between {keep[0]:g} and {keep[1]:g}",
    ]
    if r["graded"]:
        lines.append("rewards between 0 and 1 here count as chances of success: of silent groups little is known")
    judged = r["left_out"]
    if np.isfinite(judged["pearson"]):
        lines += [
            f"predicted from the others, a fifth at a time: Pearson {judged['pearson']:.2f} (the noise allows "
            f"{judged['ceiling']:.2f})",
            f"useful groups {judged['mixed']:.0%} expected, {judged['mixed_measured']:.0%} found; of the likeliest "
            f"fifth {judged['top']:.0%}, {judged['top_measured']:.0%}",
        ]
    table = [["silent groups expected in the first step", *names]]
    table.append([f"  G = {r['group_size']}", *(f"{share:.0%}" for share in r["silent"].values())])
    table.append(["useful groups of 1000 completions (share)", *[""] * len(names)])
    for G, row in r["useful_per_1000"].items():
        table.append([f"  G = {G}", *(f"{x:.0f} {x * G / 1000:4.0%}" for x in row.values())])
    lines += ["", text.table(table).rstrip(), "", "success rate: questions expected, measured"]
    most = max(r["histogram"])
    for i, (count, seen) in enumerate(zip(r["histogram"], r["histogram_measured"], strict=True)):
        low = i / len(r["histogram"])
        lines.append(f"  {low:.1f}-{low + 0.1:.1f}  {count:>7,}  {seen:>5,}  {'#' * round(40 * count / most)}")
    if len(r["parts"]) > 1:
        rows = [["part of the pool", "questions", "success", "silent"]]
        for name, part in list(r["parts"].items())[:12]:
            rows.append([name[:40], f"{part['questions']:,}", f"{part['success']:.2f}", f"{1 - part['mixed']:.0%}"])
        lines += ["", text.table(rows).rstrip()]
        lines += [f"and {len(r['parts']) - 12} more in probe.json"] if len(r["parts"]) > 12 else []
    seconds = step["seconds_rollout"] + step["seconds_update"]
    lines += [
        "",
        f"a step: {step['tokens']:,.0f} tokens generated ({step['tokens_per_completion']:.0f} a completion, "
        f"{step['truncated']:.0%} truncated) in {step['seconds_rollout']:.1f} s,",
        f"update {step['seconds_update']:.1f} s, together {text.duration(seconds)} here, compilation apart",
    ]
    return "\n".join(lines) + "\n"


def _draw(results: dict, path: str) -> None:
    """The histograms, and the useful groups of each G."""
    with picture.draw(path, 10, 4) as figure:
        rates, sizes = figure.subplots(1, 2)
        edges = np.arange(outlook.BINS) / outlook.BINS
        for name, color, offset in (("histogram", "#0072b2", 0.0), ("histogram_measured", "#d55e00", 0.045)):
            share = np.array(results[name]) / sum(results[name])
            label = "expected, all questions" if name == "histogram" else "measured"
            rates.bar(edges + 0.005 + offset, share, 0.04, align="edge", color=color, label=label)
        rates.set(title="success rate", xlabel="success rate", ylabel="share of questions", xlim=(0, 1))
        rates.legend(frameon=False)
        table = results["useful_per_1000"]
        for name in results["silent"]:
            sizes.plot(list(table), [row[name] for row in table.values()], "o-", label=name)
        sizes.set(title="useful groups of 1000 completions", xlabel="completions of a group (G)", xscale="log")
        sizes.set_xticks(list(table), [str(G) for G in table])
        sizes.set_ylim(bottom=0)
        sizes.legend(frameon=False)


def _range(given: str) -> tuple[float, float]:
    match = re.fullmatch(r"(0?\.\d+|0|1)-(0?\.\d+|1(?:\.0)?)", given)
    low, high = map(float, match.groups()) if match else (1, 0)
    if low > high:
        raise UserError(f"--keep={given} is no range of success rates; give one such as 0.2-0.8")
    return low, high


def main(argv: list[str] | None = None) -> int:
    """Runs `probe` as the flags say; returns the exit code."""
    values = flags.FlagValues()
    flags.DEFINE_integer("questions", None, "", lower_bound=1, flag_values=values)
    flags.DEFINE_string("keep", "0.2-0.8", "", flag_values=values)

    def program(config, workdir: str) -> None:
        probe(config, workdir, values.questions or 0, _range(values.keep))

    return command_line.run(program, "configs/quickstart.py", HELP, argv, values)


if __name__ == "__main__":
    command_line.end(main())
