"""DOTS with rollout replay: choose questions, roll out, grade, update, replaying earlier rollouts.

Tokens, log-probs, parameters and the buffer stay on the device: only token ids come to the host, to be graded, and only
rewards go back.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from dots_jax import experiment, learner
from dots_jax.core import sharding
from dots_jax.core.distributed import main_only, to_host
from dots_jax.core.rng import Purpose
from dots_jax.experiment import Experiment, GradedGroups, Round, RunState
from dots_jax.learner import replay
from dots_jax.run import screens, settings
from dots_jax.run.log import RunLog
from dots_jax.run.workdir import Claim, resume_point


def train(config, workdir: str, deadline: float | None = None) -> None:
    """Runs the experiment, or continues the one in `workdir`, until `deadline` (of `time.monotonic`) where it is given.

    Raises UserError for what the user can mend.
    """
    with main_only(Claim)(workdir) as claim:
        settings.same_run(config, workdir)
        resume = resume_point(workdir)
        if resume.step >= config.train.steps:
            return main_only(screens.finished)(workdir, resume.step)
        exp, state = experiment.load(config, workdir, claim)
        with RunLog(config, workdir, exp, state.ledger, deadline) as log:
            state = log.begin(state, resume, claim)  # of the newest checkpoint, where there is one
            if not resume.step:
                log.write(0, exp.evaluate(state, 0, log.keep_evaluation))
            for step in range(resume.step + 1, exp.steps + 1):
                references = None
                if exp.opens_round(step):
                    state, references = select_questions(exp, state, step, log)
                state, metrics = train_step(exp, state, step, references, log)
                if exp.evaluates_at(step):
                    metrics |= exp.evaluate(state, step, log.keep_evaluation)
                log.write(step, metrics)
                if log.save_if_due(state, step):  # no time for another
                    break
        main_only(screens.last)(workdir, exp.steps)


def select_questions(exp: Experiment, state: RunState, step: int, log: RunLog):
    """Opens a round: measures what the selector asks for, if anything, and lets it propose what to train on."""
    key, selector_state, references = exp.stream(Purpose.SELECTION, step), state.selector, None
    queries = exp.selector.queries(selector_state, key)
    prediction = exp.selector.predict(selector_state)  # of the round before, to be judged
    if len(queries):
        phase = "cost_excluded" if exp.selector.cost_excluded else "reference"
        references = exp.roll_out(state, queries, Purpose.REFERENCE, step, phase)
        measured = references.measured(step, is_reference=True)
        selector_state = exp.selector.observe(selector_state, measured)
        log.note_references(measured, prediction)
        log.keep_groups("reference", state, references, step)
    if exp.selector.rescores:
        selector_state = exp.selector.reweigh(selector_state, *exp.scored_buffer(state))
    if exp.selector.reads_policy:
        selector_state = exp.selector.read(selector_state, exp.prompt_states(state))
    with state.ledger.phase("score"):
        num_fresh = np.array([exp.num_fresh_at(state, step + i) for i in range(exp.replay_spec.interval)])
        ids, selector_state = exp.selector.propose(selector_state, key, num_fresh.sum(), step)
    new_round = Round.start(ids, num_fresh, exp.replay_spec.batch_size)
    return dataclasses.replace(state, selector=selector_state, round=new_round), references


def train_step(exp: Experiment, state: RunState, step: int, references: GradedGroups | None, log: RunLog):
    """Rolls out the step's questions and updates the policy on them and on what is replayed."""
    step_in_round, num_fresh = exp.step_in_round(step), exp.num_fresh_at(state, step)
    ids, prediction = state.round.ids[step_in_round, :num_fresh], exp.selector.predict(state.selector)  # to be judged

    # Rollouts: G completions of each question, and their rewards. Some groups may exist already.
    reused = exp.selector.num_reused if references else 0
    fresh, selector_state = roll_out(exp, state, ids[reused:], step, log)
    verdicts = fresh.verdicts
    if reused:
        indices = np.array([references.ids.tolist().index(i) for i in ids[:reused]])
        fresh = references.joined(fresh, np.append(indices, len(references.ids) + np.arange(len(fresh.ids))))
    # What had been measured before says nothing about the prediction, which was made with it.
    difficulty = np.where(log.history.is_measured[fresh.ids], np.nan, 1 - fresh.rewards.mean(1))
    this_round = state.round.with_step(step_in_round, fresh.ids, difficulty)
    state = dataclasses.replace(state, selector=selector_state, round=this_round)
    metrics = log.note_fresh(step, fresh, verdicts, prediction, state.round)
    log.keep_groups("fresh", state, fresh, step)

    # Update: draw from the buffer, advantages, clipped loss, optimizer steps, insertion, in one jitted call.
    with state.ledger.phase("update"):
        groups = learner.Groups.fresh(fresh.rollouts, fresh.rewards, fresh.ids, step, exp.mesh)
        count = jax.device_put(np.int32(num_fresh), sharding.replicated(exp.mesh))
        with jax.transfer_guard("disallow"):
            if state.buffer is not None:
                groups = replay.spread(groups, exp.replay_spec.batch_size, sharding.num_row_shards(exp.mesh))
            learner_state, buffer, info = learner.update(
                state.learner, state.buffer, groups, count, exp.key, exp.policy.model_config, exp.update_spec, exp.mesh,
                exp.replay_spec, exp.initial_params,
            )  # fmt: skip
        info = to_host(info)
    metrics |= log.note_update(step, info)
    return dataclasses.replace(state, learner=learner_state, buffer=buffer), metrics


def roll_out(exp: Experiment, state: RunState, ids: np.ndarray, step: int, log: RunLog) -> tuple[GradedGroups, Any]:
    """G completions of each question, and the selector's state.

    A selector may let others be drawn, up to `max_draws` times, in place of groups whose rewards are all equal; and it
    may look at `screening` completions of each before the rest of them is sampled.
    """
    selector, selector_state, groups = exp.selector, state.selector, None
    for draw in range(selector.max_draws):
        if draw:
            key = jax.random.fold_in(exp.stream(Purpose.SELECTION, step), draw)
            ids, selector_state = selector.propose(selector_state, key, len(ids), step)
        phase = "screening" if selector.screening else "refill" if draw else "fresh"
        new = exp.roll_out(state, ids, Purpose.ROLLOUT, step, phase, draw, selector.screening)
        selector_state = selector.observe(selector_state, new.measured(step, is_reference=False))
        if draw:
            order = np.argsort(~np.append(groups.mixed, new.mixed), kind="stable")  # the mixed ones first
            new, left = (groups.joined(new, part) for part in (order[: len(ids)], order[len(ids) :]))
            log.note_discarded(left.measured(step, is_reference=False))
        groups = new
        if groups.mixed.all():
            break
    if selector.screening:
        rest = exp.rollout_spec.group_size - selector.screening
        new = exp.roll_out(state, groups.ids, Purpose.ROLLOUT, step, "fresh", selector.max_draws, rest)
        selector_state = selector.observe(selector_state, new.measured(step, is_reference=False))
        groups = groups.continued(new)
    return groups, selector_state
