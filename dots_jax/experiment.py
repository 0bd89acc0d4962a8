"""What a run is made of: `load` spends the config; nothing is written before all of it is there."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dots_jax import data, learner, reward, selection
from dots_jax.core import config_rules, fields, plugins, rng, sharding
from dots_jax.core.distributed import is_main, main_only, to_host
from dots_jax.core.errors import UserError
from dots_jax.data import sources
from dots_jax.data.questions import Questions
from dots_jax.difficulty import embed
from dots_jax.evaluation import Evaluator, as_metrics
from dots_jax.learner import losses, replay
from dots_jax.policy import families, huggingface, scoring, source
from dots_jax.policy.source import Policy
from dots_jax.reward.types import Grader, Question
from dots_jax.rollout import Rollouts, RolloutSpec, concat_completions, concat_groups, take_groups
from dots_jax.rollout.grading import sample_graded
from dots_jax.run import mirrors, settings
from dots_jax.run import workdir as workdirs
from dots_jax.run.ledger import Ledger

_STATE_TOKENS = 32768  # of prompts, whose states are computed at a time


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Round:
    """A selection round's questions, a row for each of its steps."""

    ids: np.ndarray  # int32 [steps, B]; of a step that replays only the first are rolled out
    difficulty: np.ndarray  # float32 [steps, B], once measured; NaN for those that had been measured before

    @classmethod
    def start(cls, ids: np.ndarray, num_fresh: np.ndarray, batch_size: int) -> "Round":
        """The round of the questions `ids`, `num_fresh` [steps] of them for each step."""
        rows = np.zeros((len(num_fresh), batch_size), np.int32)
        rows[np.arange(batch_size) < num_fresh[:, None]] = ids
        return cls(rows, np.full(rows.shape, np.nan, np.float32))

    def with_step(self, step_in_round: int, ids: np.ndarray, difficulty: np.ndarray) -> "Round":
        """The round with what a step's first [P] questions have become and their difficulty."""
        rows = self.ids.copy(), self.difficulty.copy()
        for row, values in zip(rows, (ids, difficulty), strict=True):
            row[step_in_round, : len(ids)] = values
        return Round(*rows)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RunState:
    """All that changes from step to step: what a checkpoint holds."""

    learner: learner.TrainState
    buffer: replay.Groups | None  # None: no replay
    selector: Any  # state of the selector
    round: Round
    ledger: Ledger  # the same object from step to step


class GradedGroups(NamedTuple):
    """G completions of each question, and what became of them."""

    ids: np.ndarray  # int32 [P]
    rollouts: Rollouts
    rewards: np.ndarray  # float32 [P, G]
    verdicts: np.ndarray  # int8 [P, G]
    tokens: np.ndarray  # int32 [P, G]
    texts: np.ndarray  # str [P, G]; "" off the main process

    @property
    def mixed(self) -> np.ndarray:
        """Groups whose rewards differ, bool [P]."""
        return learner.mixed(self.rewards)

    def measured(self, step: int, is_reference: bool) -> selection.Measured:
        """What a selector learns of them."""
        G = self.rewards.shape[1]
        return selection.Measured(self.ids, self.rewards.sum(1), G, self.tokens.mean(1), step, is_reference)

    def joined(self, other: "GradedGroups", indices: np.ndarray) -> "GradedGroups":
        """The groups at `indices` of these and the other's together."""
        rollouts = concat_groups(self.rollouts, other.rollouts, indices)
        parts = zip(self, other, strict=True)
        arrays = [None if isinstance(a, Rollouts) else np.concatenate([a, b])[indices] for a, b in parts]
        return GradedGroups(*arrays)._replace(rollouts=rollouts)

    def continued(self, other: "GradedGroups") -> "GradedGroups":
        """The completions of both, of the same questions."""
        arrays = [np.concatenate([a, b], 1) for a, b in zip(self[2:], other[2:], strict=True)]
        return GradedGroups(self.ids, concat_completions(self.rollouts, other.rollouts), *arrays)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What stays the same from step to step."""

    steps: int
    eval_every: int
    greedy: bool  # the likeliest completions too, before the first and after the last step
    policy: Policy
    mesh: jax.sharding.Mesh
    key: jax.Array
    pool: Questions  # N
    prompts: np.ndarray  # int32 [N, S]
    lengths: np.ndarray  # int32 [N]
    questions: Sequence[Question]  # N, what the grader knows of them
    grader: Grader
    evaluator: Evaluator
    selector: selection.Selector
    rollout_spec: RolloutSpec
    replay_spec: replay.ReplaySpec
    update_spec: learner.UpdateSpec
    initial_params: dict | None  # for the KL penalty
    fingerprints: dict[str, str]  # of what the run rests on; {}: not the main process

    def opens_round(self, step: int) -> bool:
        """Whether a selection round begins with the step."""
        return self.step_in_round(step) == 0

    def step_in_round(self, step: int) -> int:
        """Which of its selection round's steps it is, from 0."""
        return (step - 1) % self.replay_spec.interval

    def num_fresh_at(self, state: RunState, step: int) -> int:
        """How many of its groups a step generates."""
        gate = state.learner.gate
        return self.replay_spec.num_fresh_at(step, int(gate.ended) if gate else 0)

    def evaluates_at(self, step: int) -> bool:
        """Whether the policy is evaluated after the step."""
        return step % self.eval_every == 0 or step == self.steps

    def stream(self, purpose: rng.Purpose, step: int) -> jax.Array:
        """The key of a purpose at a step."""
        return rng.stream(self.key, purpose, step)

    def roll_out(
        self, state: RunState, ids: np.ndarray, purpose: rng.Purpose, step: int, phase: str, draw: int = 0,
        completions: int = 0,
    ) -> GradedGroups:  # fmt: skip
        """G completions of each question, graded as they end; booked to a phase of the ledger.

        `draw`: which of the step's draws of the purpose it is; `completions`: another number of them than G.
        """
        prompts, questions = (self.prompts[ids], self.lengths[ids]), [self.questions[i] for i in ids]
        sampling = vars(self.rollout_spec) | {"mesh": self.mesh}
        sampling |= {"group_size": completions} if completions else {}
        with state.ledger.phase(phase):
            params, key = state.learner.params, self.stream(purpose, step)
            key = jax.random.fold_in(key, draw) if draw else key
            rollouts, wait = sample_graded(params, self.policy, prompts, questions, key, self.grader, **sampling)
            graded = wait()
        state.ledger.add_tokens(phase, generated=graded.lengths.sum())
        return GradedGroups(ids, rollouts, graded.rewards, graded.verdicts, graded.lengths, graded.texts)

    def scored(self, state: RunState, rollouts: Rollouts, indices: np.ndarray) -> tuple[Rollouts, Any, Any]:
        """The groups at `indices` [n], and what `learner.token_scores` says of them, on the host."""
        rollouts = take_groups(rollouts, indices, self.mesh)
        args = self.policy.model_config, self.update_spec, self.mesh
        return to_host((rollouts, *learner.token_scores(state.learner.params, rollouts, *args)))

    def prompt_states(self, state: RunState) -> np.ndarray:
        """`scoring.prompt_states` of the whole pool by today's policy, float32 [N, D + 1]."""
        (N, S), shards, parts = self.prompts.shape, sharding.num_row_shards(self.mesh), []
        rows = max(1, min(N, _STATE_TOKENS // S) // shards) * shards
        with state.ledger.phase("score"):
            for start in range(0, N, rows):
                ids = np.minimum(np.arange(start, start + rows), N - 1)  # one shape to compile
                args = self.prompts[ids], self.lengths[ids], self.policy.model_config, self.mesh
                parts.append(to_host(scoring.prompt_states(state.learner.params, *args)))
        state.ledger.add_tokens("score", scored=self.lengths.sum())
        return np.concatenate(parts)[:N]

    def scored_buffer(self, state: RunState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The buffer's questions int32 [C], their rewards [C, G], and `learner.log_weights` [C, G] of them."""
        with state.ledger.phase("score"):
            args = self.policy.model_config, self.update_spec, self.mesh
            weights, tokens = learner.log_weights(state.learner.params, state.buffer, *args)
            groups = replay.from_shards((state.buffer.ids, state.buffer.rewards, state.buffer.step))
            ids, rewards, step, weights, tokens = to_host((*groups, weights, tokens))
        state.ledger.add_tokens("score", scored=tokens)
        return ids[step >= 0], rewards[step >= 0], weights[step >= 0]

    def evaluate(self, state: RunState, step: int, keep: Callable) -> dict[str, Any]:
        """Metrics of the evaluation set; booked to a phase of the ledger.

        `keep(kind, evaluator, graded)` is told the completions.
        """

        def measure(kind: str, evaluator: Evaluator) -> dict[str, Any]:
            with state.ledger.phase("evaluation"):
                graded = evaluator.evaluate_all(state.learner.params, self.stream(rng.Purpose.EVALUATION, step))
            state.ledger.add_tokens("evaluation", generated=graded.lengths.sum())
            keep(kind, evaluator, graded)
            return as_metrics(graded, evaluator)

        metrics = measure("evaluation", self.evaluator)
        if self.greedy and step in (0, self.steps):
            metrics["eval/greedy_accuracy"] = measure("greedy", self.evaluator.greedy())["eval/accuracy"]
        return metrics

    def empty_buffer(self) -> replay.Groups | None:
        """The buffer before the first step; None: nothing is replayed."""
        if not self.replay_spec.num_replayed:
            return None
        G, T = self.rollout_spec.group_size, self.rollout_spec.max_tokens
        return replay.init(self.replay_spec.num_slots, G, self.prompts.shape[1], T, self.mesh)


def check(config) -> None:
    """Raises UserError at the first value, or values together, that no run can use."""
    config_rules.check(config, config_rules.RUN)
    batch, pool = config.train.batch_size, config.data.num_questions
    if pool and batch > pool:
        raise UserError(
            f"config.train.batch_size={batch} is more than the pool's config.data.num_questions={pool}; "
            "lower the first, or take a larger pool"
        )
    reward.check(**config.reward)
    families.find(config.policy.family)
    learner.check(config)
    replay.check(config)
    selection.find(config.selection.name).check(config)


def check_loaded(
    config, replay_spec: replay.ReplaySpec, shards: int, model_config, longest_prompt: int, pool: int
) -> None:
    """Raises UserError where the batch does not divide over `shards` devices, a row is too long for the model, or the
    `pool` questions that there are do not suffice.
    """
    if pool != config.data.num_questions:
        try:
            check(fields.replaced(config, {"data.num_questions": pool}))
        except UserError as error:
            raise UserError(f"{pool:,} questions are left of the pool: {error}") from error
    batch, fresh = replay_spec.batch_size, replay_spec.num_fresh
    if replay_spec.num_replayed and any(count % shards for count in (batch, fresh, replay_spec.num_slots)):
        raise UserError(
            f"config.train.batch_size={batch}, the {fresh} of them that are fresh "
            f"(config.replay.fresh_fraction={replay_spec.fresh_fraction}) and config.replay.capacity="
            f"{replay_spec.capacity} must all divide over the mesh's data x fsdp = {shards} devices; use multiples of "
            f"{shards}, or other config.mesh axes"
        )
    if longest_prompt + config.rollout.max_tokens > model_config.max_positions:
        raise UserError(
            f"prompts of up to {longest_prompt} tokens and config.rollout.max_tokens={config.rollout.max_tokens} "
            f"exceed the policy's {model_config.max_positions} positions; lower config.rollout.max_tokens"
        )


def _fingerprints(config, directory: str, embedder: str, pool: Questions, eval_set: Questions) -> dict[str, str]:
    """Of the files and questions that a run rests on."""
    files = {
        "predictor": config.predictor.path,
        "embeddings": embedder if embedder != directory else "",
        "family": plugins.path(config.policy.family, families.FAMILIES, "policy.family"),
        "rates": config.selection.rates,
        "selector": plugins.path(config.selection.name, selection.SELECTORS, "selection.name"),
        "loss": plugins.path(config.learner.loss, losses.LOSSES, "learner.loss"),
        "reward": plugins.path(config.reward.name, reward.REWARDS, "reward"),
    }
    return settings.fingerprints(directory, files, pool=pool, evaluation_set=eval_set)


def load(config, workdir: str, claim) -> tuple[Experiment, RunState]:
    """The experiment that a config describes, and its state before the first step.

    Writes nothing but a random policy, whose workdir `claim` then takes. Raises UserError for what the user can mend.
    """
    check(config)
    main_only(mirrors.check)(config.log)
    if not config.data.name:
        raise UserError("config.data.name is empty; name a file of questions, such as --config.data.name=my.jsonl")
    ledger = Ledger()
    mesh = sharding.make_mesh(**config.mesh)
    if config.policy.random.width:
        claim.take()
    root = sources.root(config.data.root)
    directory = source.of_config(config.policy, root, workdir, config.seed)
    export = os.path.join(workdir, workdirs.EXPORT)
    if os.path.realpath(directory) in (os.path.realpath(workdir), os.path.realpath(export)):
        raise UserError(
            f"config.policy.path={directory} lies where --workdir={workdir} would write; use another workdir"
        )
    huggingface.check_target(export)
    family = families.find(config.policy.family)
    policy, params = source.load(directory, mesh, config.policy.dtype, family)
    pool, eval_set = data.load(config, policy.tokenizer)
    instruction = config.data.system, config.data.instruction_in
    prompts, lengths = policy.encode(pool.texts, *instruction, config.data.max_prompt_tokens)
    update_spec = learner.UpdateSpec.from_config(config)
    replay_spec = replay.ReplaySpec(config.train.batch_size, config.selection.interval, **config.replay)
    check_loaded(config, replay_spec, sharding.num_row_shards(mesh), policy.model_config, prompts.shape[1], len(pool))
    key = jax.jit(lambda: jax.random.key(config.seed), out_shardings=sharding.replicated(mesh))()
    grader = reward.make(**config.reward)
    eval_prompts, eval_lengths = policy.encode(eval_set.texts, *instruction)
    capacity = max(prompts.shape[1], eval_prompts.shape[1]), config.rollout.max_tokens
    rollout_spec = RolloutSpec(**config.rollout, capacity=capacity)
    sampling = {"mesh": mesh, "temperature": config.eval.temperature, "top_p": config.eval.top_p}
    sampling |= {name: getattr(rollout_spec, name) for name in ("chunk", "slots", "capacity")}
    evaluator = Evaluator(
        policy, eval_set, eval_set.rows(), eval_prompts, eval_lengths, grader, config.eval.samples, config.eval.batch,
        rollout_spec.max_tokens, sampling,
    )  # fmt: skip
    state = learner.init_state(params, policy.model_config, update_spec, mesh, replay_spec.is_gated)
    initial_params = jax.tree.map(jnp.copy, params) if update_spec.kl_coef else None
    del params
    embedder = source.find(config.embedding.path, root) if config.embedding.path else directory
    embedder_family = family if embedder == directory else None
    fingerprints = _fingerprints(config, directory, embedder, pool, eval_set) if is_main() else {}
    main_only(settings.same_inputs)(fingerprints, workdir, config.train.mended_reward)
    context = selection.Context(
        num_questions=len(pool),
        texts=pool.texts,
        difficulty=pool.levels if pool.labels is None else pool.labels,
        lengths=lengths,
        embeddings=lambda: embed.load(embedder, pool.texts, config.embedding, mesh, embedder_family),
        steps=config.train.steps,
        mesh=mesh,
        key=rng.stream(key, rng.Purpose.SELECTION, 0),
    )
    with ledger.phase("score"):
        selector = selection.make(config, context)
    exp = Experiment(
        steps=config.train.steps,
        eval_every=config.train.eval_every,
        greedy=config.eval.greedy,
        policy=policy,
        mesh=mesh,
        key=key,
        pool=pool,
        prompts=prompts,
        lengths=lengths,
        questions=pool.items(),
        grader=grader,
        evaluator=evaluator,
        selector=selector,
        rollout_spec=rollout_spec,
        replay_spec=replay_spec,
        update_spec=update_spec,
        initial_params=initial_params,
        fingerprints=fingerprints,
    )
    no_round = Round.start(np.zeros(0, np.int32), np.zeros(replay_spec.interval, int), replay_spec.batch_size)
    return exp, RunState(state, exp.empty_buffer(), selector.init(), no_round, ledger)
