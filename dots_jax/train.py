"""DOTS with rollout replay: choose questions, roll out, grade, update, replaying earlier rollouts.

Tokens, log-probs, parameters and the buffer stay on the device: only token ids come to the host, to be graded, and only
rewards go back.
"""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from dots_jax import evaluation, experiment, learner, rollout
from dots_jax.core import distributed, sharding
from dots_jax.core.rng import Purpose
from dots_jax.experiment import Experiment, Round, RunState
from dots_jax.learner import replay
from dots_jax.run.log import RunLog
from dots_jax.run.workdir import Claim


class Measured(NamedTuple):
    """The reference groups of a round."""

    ids: np.ndarray  # int32 [M]
    rollouts: rollout.Rollouts
    graded: rollout.GradedCompletions


def train(config, workdir: str) -> None:
    """Runs the experiment, or continues the one in `workdir`. Raises UserError for what the user can mend."""
    with distributed.main_only(Claim)(workdir) as claim:
        log = RunLog(config, workdir, claim)
        if log.start >= config.train.steps:
            return log.already_finished()
        exp, state = experiment.load(config, workdir, claim, log.ledger)
        state = log.begin(exp, state)  # of the newest checkpoint, where there is one
        if not log.start:
            log.write(0, evaluate(exp, state, 0, log))
        for step in range(log.start + 1, exp.steps + 1):
            references = None
            if exp.opens_round(step):
                state, references = select_questions(exp, state, step, log)
            state, metrics = train_step(exp, state, step, references, log)
            if exp.evaluates_at(step):
                metrics |= evaluate(exp, state, step, log)
            log.write(step, metrics)
            log.save_if_due(state, step)
        log.end()


def select_questions(exp: Experiment, state: RunState, step: int, log: RunLog):
    """Opens a round: measures what the selector asks for, if anything, and lets it propose what to train on."""
    key, selector_state, references = exp.stream(Purpose.SELECTION, step), state.selector, None
    queries = exp.selector.queries(selector_state, key)
    prediction = exp.selector.predict(selector_state)  # of the round before, to be judged
    if len(queries):
        phase = "cost_excluded" if exp.selector.cost_excluded else "reference"
        references = Measured(queries, *roll_out(exp, state, queries, phase, Purpose.REFERENCE, step, log))
        successes = references.graded.rewards.sum(1)
        G = exp.rollout_spec.group_size
        selector_state = exp.selector.observe(selector_state, queries, successes, G, step, is_reference=True)
        log.note_references(step, queries, successes, prediction)
    with log.ledger.phase("score"):
        num_fresh = np.array([exp.replay_spec.num_fresh_at(step + i) for i in range(exp.replay_spec.interval)])
        ids, selector_state = exp.selector.propose(selector_state, key, num_fresh.sum(), step)
    new_round = Round.start(ids, num_fresh, exp.replay_spec.batch_size)
    return dataclasses.replace(state, selector=selector_state, round=new_round), references


def train_step(exp: Experiment, state: RunState, step: int, references: Measured | None, log: RunLog):
    """Rolls out the step's questions and updates the policy on them and on what is replayed."""
    step_in_round, num_fresh = exp.step_in_round(step), exp.replay_spec.num_fresh_at(step)
    ids, prediction = state.round.ids[step_in_round, :num_fresh], exp.selector.predict(state.selector)  # to be judged

    # Rollouts: G completions of each question, and their rewards. Some groups may exist already.
    reused = exp.selector.num_reused if references else 0
    rollouts, graded = roll_out(exp, state, ids[reused:], "fresh", Purpose.ROLLOUT, step, log)
    rewards = graded.rewards
    selector_state = exp.selector.observe(
        state.selector, ids[reused:], rewards.sum(1), exp.rollout_spec.group_size, step, is_reference=False
    )
    if reused:
        indices = np.array([np.flatnonzero(references.ids == i)[0] for i in ids[:reused]])
        rollouts = rollout.concat_groups(references.rollouts, indices, rollouts)
        rewards = np.concatenate([references.graded.rewards[indices], rewards])
    # What had been measured before says nothing about the prediction, which was made with it.
    difficulty = np.where(log.history.is_measured[ids], np.nan, 1 - rewards.mean(1))
    state = dataclasses.replace(state, selector=selector_state, round=state.round.measured(step_in_round, difficulty))
    metrics = log.note_fresh(step, ids, rollouts, rewards, graded.verdicts, prediction, state.round)

    # Update: draw from the buffer, advantages, clipped loss, optimizer steps, insertion, in one jitted call.
    with log.ledger.phase("update"):
        groups = learner.Groups.fresh(rollouts, rewards, ids, step, exp.mesh)
        count = jax.device_put(np.int32(num_fresh), sharding.replicated(exp.mesh))
        with jax.transfer_guard("disallow"):
            if state.buffer is not None:
                groups = replay.spread(groups, exp.replay_spec.batch_size, sharding.num_row_shards(exp.mesh))
            learner_state, buffer, info = learner.update(
                state.learner, state.buffer, groups, count, exp.key, exp.policy.model_config, exp.update_spec, exp.mesh,
                exp.replay_spec, exp.initial_params,
            )  # fmt: skip
        info = distributed.to_host(info)
    metrics |= log.note_update(step, info)
    return dataclasses.replace(state, learner=learner_state, buffer=buffer), metrics


def roll_out(exp: Experiment, state: RunState, ids: np.ndarray, phase: str, purpose: Purpose, step: int, log: RunLog):
    """G completions of each question and what became of them, booked to a phase of the ledger."""
    with log.ledger.phase(phase):
        rollouts, graded = exp.roll_out(state.learner.params, ids, exp.stream(purpose, step))
    log.ledger.add_tokens(phase, generated=graded.lengths.sum())
    return rollouts, graded


def evaluate(exp: Experiment, state: RunState, step: int, log: RunLog) -> dict:
    """Asks the evaluation set; returns metrics."""

    def ask(evaluator):
        with log.ledger.phase("evaluation"):
            graded = evaluator.evaluate_all(state.learner.params, exp.stream(Purpose.EVALUATION, step))
        log.ledger.add_tokens("evaluation", generated=graded.lengths.sum())
        return evaluation.as_metrics(graded, evaluator)

    metrics = ask(exp.evaluator)
    if exp.greedy and step in (0, exp.steps):
        metrics["eval/greedy_accuracy"] = ask(exp.evaluator.greedy())["eval/accuracy"]
    return metrics
