"""What a selector can do. A new one overrides `propose` and what else it needs."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from dots_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Context:
    """What selectors may know of the run."""

    num_questions: int  # N
    texts: Sequence[str]  # [N], without a prompt around them
    difficulty: np.ndarray  # [N], external, larger is harder, NaN: unknown
    lengths: np.ndarray  # int32 [N], prompt tokens
    embeddings: Callable[[], np.ndarray]  # -> float32 [N, D]; computed when called
    steps: int  # of the whole run
    mesh: jax.sharding.Mesh
    key: jax.Array  # for what is drawn once


@dataclasses.dataclass(frozen=True)
class Measured:
    """What rollouts have shown of P questions."""

    ids: np.ndarray  # int32 [P]
    successes: np.ndarray  # float [P], sums of rewards
    rollouts: int  # completions of each
    tokens: np.ndarray  # float32 [P], mean of their tokens
    step: int
    is_reference: bool  # asked for by `queries`; else of the questions proposed

    @property
    def rate(self) -> np.ndarray:
        """Share of successes, float [P]."""
        return self.successes / self.rollouts

    @property
    def mixed(self) -> np.ndarray:
        """Neither all nor none succeeded, bool [P]."""
        return (self.successes > 0) & (self.successes < self.rollouts)


class Selector:
    """Chooses questions by id. All that it remembers is its state: a pytree of arrays, which a checkpoint holds.

    `key` is always of this step's selection stream.
    """

    cost_excluded = False  # what it measures is kept out of the ledger: a bound, not a method
    embeds = False  # it calls `Context.embeddings`
    depends_on_steps = False  # what it proposes depends on the length of the run
    rescores = False  # before each round it is told, by `reweigh`, what today's policy makes of the replay buffer
    reads_policy = False  # before each round it is told, by `read`, today's policy's hidden states at the prompts
    max_draws = 1  # of a step: beyond the first, `propose` is asked again for as many until all groups are mixed
    screening = 0  # completions of each question that show whether it is worth the others; 0: all are sampled at once
    num_reused = 0  # how many of the questions just measured are the first that it proposes: their groups exist

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Raises UserError where fields of the config do not go together. `data.num_questions` 0: not known yet."""

    @classmethod
    def num_queries(cls, config: ConfigDict) -> int:
        """How many questions `queries` returns, M."""
        return 0

    @classmethod
    def calls(cls, config: ConfigDict) -> list[int]:
        """Completions of each question in the calls of the sampler that a step makes at most; for the plan."""
        G = config.rollout.group_size
        n = cls.screening or G
        return cls.max_draws * [n] + [G - n] * (n < G)

    def __init__(self, config: ConfigDict, context: Context):
        self.config, self.context = config, context

    def init(self) -> Any:
        """The state before the first round."""
        return {}

    def queries(self, state: Any, key: jax.Array) -> np.ndarray:
        """Questions to roll out before `propose`, int32 [M], M = `num_queries` in every round."""
        return np.zeros(0, np.int32)

    def propose(self, state: Any, key: jax.Array, n: int, step: int) -> tuple[np.ndarray, Any]:
        """The n questions to train on from `step` to the end of the round, int32 [n], and the state.

        The first go to the round's first step. Ids may repeat; n is smaller once replay has begun.
        """
        raise NotImplementedError

    def observe(self, state: Any, measured: Measured) -> Any:
        """The state once these questions have been rolled out."""
        return state

    def reweigh(self, state: Any, ids: np.ndarray, rewards: np.ndarray, log_weights: np.ndarray) -> Any:
        """The state once the buffer's groups, of questions `ids` int32 [C], are scored by today's policy.

        rewards [C, G]; log_weights [C, G]: of each completion log pi_now - log pi_behaviour, over its tokens.
        """
        return state

    def read(self, state: Any, prompts: np.ndarray) -> Any:
        """The state once today's policy has read all prompts.

        prompts float32 [N, D + 1]: its final hidden state at the last token, and the prompt's mean log-prob.
        """
        return state

    def predict(self, state: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """Difficulty of all questions as last predicted and its uncertainty, float32 [N] both; None: no idea."""
        return None

    def save(self, state: Any, workdir: str) -> None:
        """Writes what others may want of the state to the workdir when the run ends."""


def check_references(config: ConfigDict) -> None:
    """Raises UserError where references are more than the pool's questions, or fewer than are trained on."""
    c, batch, pool = config.selection, config.train.batch_size, config.data.num_questions
    references, fresh = f"config.selection.references={c.references}", round(config.replay.fresh_fraction * batch)
    if pool and c.references > pool:
        raise UserError(f"{references} is more than the pool's config.data.num_questions={pool}; lower it")
    if c.reuse_references > c.references or (c.reuse_references and c.reuse_references >= fresh):
        raise UserError(
            f"config.selection.reuse_references={c.reuse_references} must be at most {references} and below the "
            f"{fresh} fresh groups of a step (config.replay.fresh_fraction of config.train.batch_size={batch})"
        )


def check_distinct(config: ConfigDict) -> None:
    """Raises UserError where a round's questions are more than the pool's: for selectors that draw distinct ones."""
    batch, interval, pool = config.train.batch_size, config.selection.interval, config.data.num_questions
    if pool and batch * interval > pool:
        raise UserError(
            f"a selection round draws {batch * interval} distinct questions (config.train.batch_size={batch} x "
            f"config.selection.interval={interval}) from a pool of config.data.num_questions={pool}; lower them"
        )
