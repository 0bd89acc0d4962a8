"""DOTS with rollout replay: choose questions, roll out, grade, update, replaying earlier rollouts.

Tokens, log-probs, parameters and the buffer stay on the device: only token ids come to the host, to be graded, and only
rewards go back.
"""

import dataclasses

import jax
import numpy as np

from dots_jax import experiment, learner
from dots_jax.core import sharding
from dots_jax.core.distributed import main_only, to_host
from dots_jax.core.rng import Purpose
from dots_jax.experiment import Experiment, GradedGroups, Round, RunState
from dots_jax.learner import replay
from dots_jax.rollout import concat_groups
from dots_jax.run import screens, settings
from dots_jax.run.log import RunLog
from dots_jax.run.workdir import Claim, resume_point


def train(config, workdir: str) -> None:
    """Runs the experiment, or continues the one in `workdir`. Raises UserError for what the user can mend."""
    with main_only(Claim)(workdir) as claim:
        settings.same_run(config, workdir)
        resume = resume_point(workdir)
        if resume.step >= config.train.steps:
            return main_only(screens.finished)(workdir, resume.step)
        exp, state = experiment.load(config, workdir, claim)
        with RunLog(config, workdir, exp, state.ledger) as log:
            state = log.begin(state, resume, claim)  # of the newest checkpoint, where there is one
            if not resume.step:
                log.write(0, exp.evaluate(state, 0))
            for step in range(resume.step + 1, exp.steps + 1):
                references = None
                if exp.opens_round(step):
                    state, references = select_questions(exp, state, step, log)
                state, metrics = train_step(exp, state, step, references, log)
                if exp.evaluates_at(step):
                    metrics |= exp.evaluate(state, step)
                log.write(step, metrics)
                log.save_if_due(state, step)
        main_only(screens.last)(workdir)


def select_questions(exp: Experiment, state: RunState, step: int, log: RunLog):
    """Opens a round: measures what the selector asks for, if anything, and lets it propose what to train on."""
    key, selector_state, references = exp.stream(Purpose.SELECTION, step), state.selector, None
    queries = exp.selector.queries(selector_state, key)
    prediction = exp.selector.predict(selector_state)  # of the round before, to be judged
    if len(queries):
        phase = "cost_excluded" if exp.selector.cost_excluded else "reference"
        references = exp.roll_out(state, queries, Purpose.REFERENCE, step, phase)
        successes, G = references.rewards.sum(1), exp.rollout_spec.group_size
        selector_state = exp.selector.observe(selector_state, queries, successes, G, step, is_reference=True)
        log.note_references(step, queries, successes, prediction)
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
    fresh = exp.roll_out(state, ids[reused:], Purpose.ROLLOUT, step, "fresh")
    rollouts, rewards, G = fresh.rollouts, fresh.rewards, exp.rollout_spec.group_size
    selector_state = exp.selector.observe(state.selector, fresh.ids, rewards.sum(1), G, step, is_reference=False)
    if reused:
        indices = np.array([references.ids.tolist().index(i) for i in ids[:reused]])
        rollouts = concat_groups(references.rollouts, indices, rollouts)
        rewards = np.concatenate([references.rewards[indices], rewards])
    # What had been measured before says nothing about the prediction, which was made with it.
    difficulty = np.where(log.history.is_measured[ids], np.nan, 1 - rewards.mean(1))
    this_round = state.round.with_difficulty(step_in_round, difficulty)
    state = dataclasses.replace(state, selector=selector_state, round=this_round)
    metrics = log.note_fresh(step, ids, rollouts, rewards, fresh.verdicts, prediction, state.round)

    # Update: draw from the buffer, advantages, clipped loss, optimizer steps, insertion, in one jitted call.
    with state.ledger.phase("update"):
        groups = learner.Groups.fresh(rollouts, rewards, ids, step, exp.mesh)
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
