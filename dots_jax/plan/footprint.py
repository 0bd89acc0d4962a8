"""What a run holds on each device, phase by phase, and what it computes, from shapes alone."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dots_jax import selection
from dots_jax.core import sharding
from dots_jax.core.arithmetic import ceil_div, round_up
from dots_jax.data import is_made, sources
from dots_jax.difficulty import embed
from dots_jax.learner import losses, replay
from dots_jax.learner.types import Groups
from dots_jax.policy import attention, packed, shapes, transformer
from dots_jax.rollout.layout import SamplerSpec, default_slots

UNKNOWN = 1000  # questions of a set or pool that is only read when the run begins


def _largest(*kinds: dict[str, int]) -> dict[str, int]:
    return max(kinds, key=lambda sizes: sum(sizes.values()))


@functools.cache
def _group_bytes(*sizes: int) -> int:
    """One group with all that replay knows of it."""
    groups = jax.eval_shape(lambda: Groups.empty((1,), *sizes))
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(groups))


@dataclasses.dataclass(frozen=True)
class Footprint:
    """A run on a mesh: what its parts hold on each device, in bytes."""

    config: ConfigDict
    model_config: transformer.ModelConfig
    mesh: jax.sharding.AbstractMesh
    replay_spec: replay.ReplaySpec
    platform: str
    device_bytes: float  # that the run may use of one device

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the policy."""
        return jnp.dtype(self.config.policy.dtype).itemsize

    @property
    def slots(self) -> int:
        """Completions decoded at a time, on all devices."""
        return self.sampler_spec.slots * self._shards

    @property
    def _fused(self) -> bool:
        """Whether attention never holds scores."""
        return bool(attention.kernel(self.platform, self.config.policy.dtype, self.model_config.head_width))

    @property
    def _unit(self) -> int:
        return sharding.length_unit(self.platform)

    @property
    def _shards(self) -> int:
        return sharding.num_row_shards(self.mesh)

    @property
    def sampled(self) -> dict[str, tuple[int, int]]:
        """(P, G) of each kind of call of the sampler."""
        c, references = self.config, self._num_references
        group, evaluated = c.rollout.group_size, self._num_evaluated
        calls = {
            "fresh": (self.replay_spec.most_fresh(range(1, c.train.steps + 1)), group),
            "evaluation": (min(c.eval.batch or evaluated, evaluated), c.eval.samples),
        }
        return calls | ({"reference": (references, group)} if references else {})

    @property
    def _num_evaluated(self) -> int:
        """Questions of an evaluation."""
        c = self.config
        if is_made(c.data.name) or not c.eval.sets:
            return c.data.num_heldout
        sizes = [sources.SETS[n].size if n in sources.SETS else UNKNOWN for n in sources.names(c.eval.sets)]
        return max(1, sum(min(size, c.eval.questions or size) for size in sizes))

    @property
    def _num_references(self) -> int:
        """Questions that a selection round measures."""
        return self._selector.num_queries(self.config)

    @property
    def _selector(self) -> type[selection.Selector]:
        return selection.find(self.config.selection.name)

    def _numbers(self, rules=sharding.RULES, names=None) -> int:
        """Numbers of all or some parameters on one device."""
        declared = transformer.declare(self.model_config)
        places = transformer.shardings(self.model_config, self.mesh, rules)
        held = jax.tree.map(lambda p, place: math.prod(place.shard_shape(p.shape)), declared, places)
        return sum(jax.tree.leaves([held[name] for name in names or held]))

    def _groups(self, count: int) -> int:
        """`count` groups, split over the rows' shards."""
        c = self.config
        each = _group_bytes(c.rollout.group_size, c.data.max_prompt_tokens, c.rollout.max_tokens)
        return ceil_div(count, self._shards) * each

    def _resident(self) -> dict[str, int]:
        """What is there in every phase."""
        c, count, spec = self.config, self._numbers(), self.replay_spec
        fresh = self.sampled["fresh"][0]
        # The loop's variables keep a step's rollouts until the next ones are there.
        counts = [spec.batch_size, self._num_references, *([fresh] if spec.num_replayed else [])]
        return {
            "parameters": count * self.itemsize,
            "optimizer": count * (8 if self.itemsize == 4 else 12),  # two moments, and a float32 copy
            "reference policy": count * self.itemsize if c.learner.kl_coef else 0,
            "replay buffer": self._groups(spec.num_slots) if spec.num_replayed else 0,
            "kept rollouts": sum(map(self._groups, counts)),
        }

    def phases(self) -> dict[str, dict[str, int]]:
        """Bytes by phase and kind; every kind of a phase is there at the same time."""
        resident = self._resident()
        parts = {"score": self._score()} if self._selector.embeds else {}
        parts |= self._sampling(self.sampler_spec) | self._update()
        return {name: resident | kinds for name, kinds in parts.items()}

    def _table(self, size: int) -> int:
        """The embedding whole and in float32, as `transformer.hidden` looks it up, where it does not lie so."""
        whole = self.mesh.shape["fsdp"] * self.mesh.shape["tensor"] == 1 and size == 4
        return 0 if whole else 4 * self.model_config.vocab_size * self.model_config.width

    def _gathered(self, size: int) -> int:
        """One layer's parameters gathered over fsdp, and the next layer's."""
        if self.mesh.shape["fsdp"] == 1:
            return 0
        body = self._numbers(sharding.RULES | {"embed": None}, ["layers"])
        return 2 * body // self.model_config.num_layers * size

    def _split(self, size: int) -> int:
        """What of an axis one device has where it is split over `tensor`."""
        return size // self.mesh.shape["tensor"] if size % self.mesh.shape["tensor"] == 0 else size

    @property
    def _heads(self) -> int:
        """Query heads on one device; kept together with the keys that they read."""
        m = self.model_config
        return self._split(m.num_heads) if self._split(m.num_kv_heads) < m.num_kv_heads else m.num_heads

    def _layer(self, rows: int, length: int, backward: bool, size: int) -> int:
        """The most that one layer holds beside its input: rows of D and of F numbers, and blocks of scores."""
        tokens = rows * length * size
        inner = tokens * self._split(self.model_config.mlp_width)
        block = 0 if self._fused else 4 * rows * self._heads * min(length, attention.QUERY_BLOCK) * length
        wide = tokens * self.model_config.width
        return 8 * wide + 3 * inner + 4 * block if backward else 3 * wide + 2 * max(inner, block)

    @property
    def embeds(self) -> bool:
        """Whether the run makes embeddings of its pool."""
        embeds = self._selector.embeds
        return embeds and not self.config.embedding.path.endswith(".npy")

    @property
    def embedding_block(self) -> tuple[int, int]:
        """Rows of one device and tokens of the longest texts that are embedded at a time."""
        c = self.config
        longest = round_up(min(c.embedding.max_tokens, c.data.max_prompt_tokens), self._unit)
        return ceil_div(max(1, embed.BATCH_TOKENS // longest), self._shards), longest

    def _score(self) -> dict[str, int]:
        """Embedding the pool with a frozen model of the policy's shape, and what the predictor reads."""
        c, m = self.config, self.model_config
        held = ceil_div(c.data.num_questions, self._shards) * 4 * (m.width + c.predictor.width)
        if c.embedding.path.endswith(".npy"):
            return {"pool": held}
        size, (rows, longest) = jnp.dtype(c.embedding.dtype).itemsize, self.embedding_block
        return {
            "pool": held,
            "embedding model": self._numbers() * size,
            "gathered": self._table(size) + self._gathered(size),
            "activations": self._layer(rows, longest, False, size),
        }

    @functools.cached_property
    def sampler_spec(self) -> SamplerSpec:
        """What the sampler's programs are compiled for; with `rollout.slots` 0 as many as do well and fit."""
        c = self.config.rollout
        sizes = self.config.data.max_prompt_tokens, c.max_tokens, min(c.chunk, c.max_tokens)

        def spec(slots: int) -> SamplerSpec:
            dtype = jnp.dtype(self.config.policy.dtype)
            return SamplerSpec(self.model_config, self.mesh, self.platform, dtype, slots, *sizes)

        if c.slots:
            return spec(ceil_div(c.slots, self._shards))
        specs = [spec(default_slots(self.platform) * eighths // 8) for eighths in range(8, 0, -1)]
        left = self.device_bytes - sum(self._resident().values())
        needed = (max(sum(kinds.values()) for kinds in self._sampling(spec).values()) for spec in specs)
        return next((spec for spec, size in zip(specs, needed, strict=True) if size <= left), specs[-1])

    @property
    def most_rows(self) -> int:
        """Rows of one device in the call of the sampler that has the most."""
        return max(ceil_div(P, self._shards) * G for P, G in self.sampled.values())

    def _sampling(self, spec: SamplerSpec) -> dict[str, dict[str, int]]:
        """Prefill and decoding of the call of the sampler that needs most."""
        m = self.model_config
        rows = self.most_rows
        slots = spec.size_for(rows)
        token = 2 * m.num_layers * self._split(m.num_kv_heads) * m.head_width * self.itemsize  # keys and values
        block, width = spec.prefill_questions, spec.prefill_widths[-1]
        held = {
            "decode weights": self._numbers(sharding.RULES | {"embed": None}) * self.itemsize,
            "rollouts": 2 * rows * 8 * spec.max_tokens,  # as they are drawn, and as they are returned
            "KV cache": slots * sum(spec.pieces) * token,
        }
        prefill = {
            "prompt KV": 2 * block * (width + spec.chunk) * token,  # stacked, and by layer
            "gathered": max(self._table(self.itemsize), self._gathered(self.itemsize)),
            "activations": self._layer(block, width, False, self.itemsize),
        }
        scores, chunk = 4 * self._heads * (sum(spec.pieces) + spec.chunk), 2 * slots * spec.chunk * token
        if spec.fused:
            scores = chunk = 0
        inner = self.itemsize * self._split(m.mlp_width)
        passes = {"activations": slots * (self.itemsize * 4 * m.width + 3 * max(scores, inner))}
        # Unnormalised log-probs and weights; once more where parts of a split vocabulary are brought together. A
        # chunk's keys and values are turned on their way into the cache.
        draws = {"logits": (2 + (self.mesh.shape["tensor"] > 1)) * 4 * slots * m.vocab_size}
        decode = {"prompt KV": block * spec.prompt_slots(width) * token, "chunk KV": chunk}
        return {"prefill": held | prefill, "decode": held | decode | _largest(passes, draws)}

    @property
    def _pack_specs(self) -> tuple[packed.PackSpec, packed.PackSpec]:
        """Of the completions' micro-batches, and of the prompts'."""
        c, groups = self.config, self._minibatch_groups
        budget, longest = c.learner.micro_tokens, max(c.data.max_prompt_tokens - 1, 1)
        rows = packed.PackSpec.of(budget, groups * c.rollout.group_size, c.rollout.max_tokens, longest, self.platform)
        return rows, packed.PackSpec.of(budget // 4, groups, longest, 0, self.platform)

    @property
    def _minibatch_groups(self) -> int:
        """Groups of a minibatch on one device."""
        return ceil_div(self.replay_spec.batch_size // self.config.learner.minibatches, self._shards)

    def _update(self) -> dict[str, dict[str, int]]:
        """The two moments of a micro-batch that need most: its loss, and the backward pass of a layer."""
        c, m, spec = self.config, self.model_config, self.replay_spec
        S, T, G = c.data.max_prompt_tokens, c.rollout.max_tokens, c.rollout.group_size
        V, D = m.vocab_size, m.width
        rows, prompts = self._pack_specs
        tokens, numbers, size = rows.tokens * self.itemsize, self._numbers(), self.itemsize
        heads, kv_heads = self._heads * m.head_width, self._split(m.num_kv_heads) * m.head_width
        products = 2 * heads + 2 * kv_heads + D + 2 * self._split(m.mlp_width)  # of a token in a layer
        saved = m.num_layers * tokens * (D + {"none": products + 8 * D, "named": products, "full": 0}[c.learner.remat])
        # Every device holds all rows, cut up and in order: a random permutation of a split axis gathers it.
        batch = spec.batch_size * 4 * (S + 4 * G * T)
        head = self._numbers(sharding.RULES | {"embed": None}, ["embed" if m.tie_embeddings else "head"])
        shared = self._minibatch_groups * prompts.widths[-1] * 2 * m.num_layers * kv_heads
        held = {
            "rows": batch + (self._groups(spec.batch_size) if spec.num_replayed else 0),
            "gradients": numbers * (4 + size),  # the sum over micro-batches, and one's own
            "prompt KV": shared * (4 + 2 * size),  # with the sum of its gradients, and one's own
        }
        both = self.mesh.shape["fsdp"] > 1 and self.mesh.shape["tensor"] > 1
        whole = 2 * V * D * size if both else 0  # XLA gathers the two tables over both axes
        loss = {
            "gathered": head * (4 + size * ((self.mesh.shape["fsdp"] > 1) + m.tie_embeddings)) + whole,  # with gradient
            "activations": saved + 3 * tokens * D,
            "logits": 3 * 4 * min(c.learner.logits_chunk, rows.tokens) * V,  # log-probs, what is hit, and the slope
        }
        backward = {
            "gathered": self._gathered(size) + 4 * head * (2 - m.tie_embeddings),  # with the tables' gradients
            "activations": saved + self._packed_layer(rows),
        }
        return {"loss": held | loss, "backward": held | backward}

    def _packed_layer(self, spec: packed.PackSpec) -> int:
        """The most that the backward pass of a layer holds beside what is saved of it."""
        m, size, S = self.model_config, self.itemsize, spec.prompt_widths[-1]
        wide = spec.tokens * size * (8 * m.width + 3 * self._split(m.mlp_width))

        def attention_bytes(width: int) -> int:
            rows, width = spec.slots(width), width + S
            block = 0 if self._fused else 4 * 4 * self._heads * min(width - S, attention.QUERY_BLOCK) * width
            return rows * (block + size * width * 4 * (self._heads + 2 * self._split(m.num_kv_heads)) * m.head_width)

        return wide + max(map(attention_bytes, spec.widths))

    def tokens(self) -> dict[str, float]:
        """Tokens of a training step at most, all completions being as long as they may be."""
        c, spec = self.config, self.replay_spec
        row = c.rollout.group_size * c.rollout.max_tokens
        prompt = c.rollout.group_size * c.data.max_prompt_tokens
        return {
            "generated": self.sampled["fresh"][0] * sum(self._selector.calls(c)) * c.rollout.max_tokens,
            "generated for references": self._num_references / c.selection.interval * row,
            "trained": spec.batch_size * row,
            "trained, prompts too": spec.batch_size * (row + prompt),
        }

    def flops(self) -> dict[str, float]:
        """FLOPs of a training step at most, and of an evaluation: matrix products and causal attention."""
        c, spec = self.config, self.replay_spec
        m, S, T, G = self.model_config, c.data.max_prompt_tokens, c.rollout.max_tokens, c.rollout.group_size
        body, head = 2 * shapes.count(m, embeddings=False), 2 * m.vocab_size * m.width
        key = 4 * m.num_layers * m.num_heads * m.head_width  # of one token with one key

        def seen(n):  # keys, by n tokens from the first on
            return n * (n + 1) // 2

        def question(G):  # its prompt once, and G completions
            decode = body * T + key * (seen(S + T - 1) - seen(S - 1)) + head * T  # the prompt's last token again
            return body * S + key * seen(S) + G * decode

        rows = spec.batch_size * G
        prompts, forward = (
            spec.batch_size * (body * S + key * seen(S)),
            body * T + key * (seen(S + T) - seen(S)) + head * T,
        )
        # Forward 1, backward 2; layers again where they are recomputed, the head always, and a group's prompt once.
        trained = rows * (3 * forward + (forward if c.learner.remat == "full" else head * T)) + 4 * prompts
        scored = spec.num_replayed * losses.needs_proximal(losses.find(c.learner.loss))
        scored += self.sampled["fresh"][0] * (c.learner.rescore_fresh and c.policy.dtype != "float32")
        scored *= G * (c.learner.minibatches - 1) / c.learner.minibatches  # all minibatches but the first
        trained += scored * (forward + prompts / rows)
        rescored = spec.num_slots * self._selector.rescores
        evaluated = question(c.eval.samples) + question(1) * bool(c.eval.greedy)
        return {
            "sampling": self.sampled["fresh"][0] * sum(map(question, self._selector.calls(c))),
            "references": self._num_references / c.selection.interval * question(G),
            "scoring of the buffer": rescored * (G * forward + prompts / spec.batch_size) / c.selection.interval,
            "update": trained + (rows * forward if c.learner.kl_coef else 0),
            "evaluation": self._num_evaluated * evaluated,
        }
