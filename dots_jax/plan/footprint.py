"""What a run holds on each device, phase by phase, and what it computes, from shapes alone."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dots_jax import selection
from dots_jax.core import sharding
from dots_jax.core.arithmetic import ceil_div, round_up
from dots_jax.data import sources
from dots_jax.difficulty import embed
from dots_jax.learner import losses, replay
from dots_jax.policy import attention, qwen2, shapes
from dots_jax.rollout import sampler

UNKNOWN = 1000  # questions of a set or pool that is only read when the run begins


@dataclasses.dataclass(frozen=True)
class Footprint:
    """A run on a mesh: what its parts hold on each device, in bytes."""

    config: ConfigDict
    model: qwen2.Config
    mesh: jax.sharding.AbstractMesh
    rule: replay.ReplaySpec
    size: int  # bytes of a number of the policy
    platform: str

    @property
    def fused(self) -> bool:
        """Whether attention never holds scores."""
        return self.platform == "gpu" and self.size == 2

    @property
    def unit(self) -> int:
        """What padded lengths are multiples of."""
        return sharding.length_unit(self.platform)

    @property
    def shards(self) -> int:
        """Devices that rows are split over."""
        return sharding.num_row_shards(self.mesh)

    @property
    def sampled(self) -> dict[str, tuple[int, int]]:
        """(P, G) of each kind of call of the sampler."""
        c = self.config
        group = c.rollout.group_size
        calls = {
            "fresh": (max(self.rule.num_fresh_at(step) for step in range(1, c.train.steps + 1)), group),
            "evaluation": (min(c.eval.batch or self.exams, self.exams), c.eval.samples),
        }
        return calls | ({"reference": (self.asked, group)} if self.asked else {})

    @property
    def exams(self) -> int:
        """Questions of an evaluation."""
        c = self.config
        if c.data.name == "arithmetic":
            return c.data.num_heldout
        sizes = [sources.SETS[n].size if n in sources.SETS else UNKNOWN for n in sources.names(c.eval.sets)]
        return max(1, sum(min(size, c.eval.questions or size) for size in sizes))

    @property
    def asked(self) -> int:
        """Questions that a selection round measures."""
        return self.selector.num_queries(self.config)

    @property
    def selector(self) -> type[selection.Selector]:
        """The class of the selector."""
        return selection.find(self.config.selection.name)

    def numbers(self, rules=sharding.RULES, names=None) -> int:
        """Numbers of all or some parameters on one device."""
        tree = qwen2.declare(self.model)
        tree = {name: part for name, part in tree.items() if names is None or name in names}
        places = jax.tree.leaves(
            qwen2.map_declared(lambda p: sharding.spec(self.mesh, p.shape, p.axes, rules), tree),
            is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec),
        )
        declared = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, qwen2.Parameter))
        return sum(
            math.prod(p.shape) // math.prod(self.mesh.shape[axis] for axis in place if axis)
            for p, place in zip(declared, places, strict=True)
        )

    def groups(self, count: int) -> int:
        """`count` groups with all that replay knows of them, split over the rows' shards."""
        c = self.config
        G, S, T = c.rollout.group_size, c.data.max_prompt_tokens, c.rollout.max_tokens
        rollouts = 4 * (S + 1) + G * (8 * T + 4 + 1)
        return ceil_div(count, self.shards) * (rollouts + 4 * G + 4 * 3)

    def phases(self) -> dict[str, dict[str, int]]:
        """Bytes by phase and kind; every kind of a phase is there at the same time."""
        c, count, rule = self.config, self.numbers(), self.rule
        fresh = self.sampled["fresh"][0]
        resident = {
            "parameters": count * self.size,
            "optimizer": count * (8 if self.size == 4 else 12),  # two moments, and a float32 copy
            "reference policy": count * self.size if c.learner.kl_coef else 0,
            "replay buffer": self.groups(rule.num_slots) if rule.num_replayed else 0,
        }
        # The loop's variables keep a step's rollouts until the next ones are there.
        kept = self.groups(rule.batch_size) + self.groups(fresh) * bool(rule.num_replayed) + self.groups(self.asked)
        phases = {"score": resident | self.score()} if self.selector.embeds else {}
        for name, parts in itertools.chain(self.sample(), self.update()):
            phases[name] = resident | parts | {"rollouts": parts.get("rollouts", 0) + kept}
        return phases

    def table(self, size: int) -> int:
        """The embedding whole and in float32, as `qwen2.hidden` looks it up, where it does not lie so."""
        whole = self.mesh.shape["fsdp"] * self.mesh.shape["tensor"] == 1 and size == 4
        return 0 if whole else 4 * self.model.vocab_size * self.model.width

    def gathered(self, size: int) -> int:
        """One layer's parameters gathered over fsdp, and the next layer's."""
        if self.mesh.shape["fsdp"] == 1:
            return 0
        body = self.numbers(sharding.RULES | {"embed": None}, ["layers"])
        return 2 * body // self.model.num_layers * size

    def split(self, size: int) -> int:
        """What of an axis one device has where it is split over `tensor`."""
        return size // self.mesh.shape["tensor"] if size % self.mesh.shape["tensor"] == 0 else size

    @property
    def heads(self) -> int:
        """Query heads on one device; kept together with the keys that they read."""
        m = self.model
        return self.split(m.num_heads) if self.split(m.num_kv_heads) < m.num_kv_heads else m.num_heads

    def layer(self, rows: int, length: int, backward: bool, size: int) -> int:
        """The most that one layer holds beside its input: rows of D and of F numbers, and blocks of scores."""
        tokens = rows * length * size
        inner = tokens * self.split(self.model.mlp_width)
        block = 0 if self.fused else 4 * rows * self.heads * min(length, attention.QUERY_BLOCK) * length
        wide = tokens * self.model.width
        return 8 * wide + 3 * inner + 4 * block if backward else 3 * wide + 2 * max(inner, block)

    def score(self) -> dict[str, int]:
        """Embedding the pool with a frozen model of the policy's shape, and what the predictor reads."""
        c, m = self.config, self.model
        held = ceil_div(c.data.num_questions, self.shards) * 4 * (m.width + c.predictor.width)
        if c.embedding.path.endswith(".npy"):
            return {"pool": held}
        size = jnp.dtype(c.embedding.dtype).itemsize
        longest = round_up(min(c.embedding.max_tokens, c.data.max_prompt_tokens), self.unit)
        rows = ceil_div(max(1, embed.BATCH_TOKENS // longest), self.shards)
        return {
            "pool": held,
            "embedding model": self.numbers() * size,
            "gathered": self.table(size) + self.gathered(size),
            "activations": self.layer(rows, longest, False, size),
        }

    def sample(self):
        """Yields prefill and decoding of the call of the sampler that needs most."""
        calls = [self._sample(*call) for call in self.sampled.values()]
        for phase in ("prefill", "decode"):
            yield phase, max((call[phase] for call in calls), key=lambda kinds: sum(kinds.values()))

    def _sample(self, P: int, G: int) -> dict[str, dict[str, int]]:
        c, m, shards = self.config, self.model, self.shards
        V, D, L, E = m.vocab_size, m.width, m.num_layers, m.head_width
        T = c.rollout.max_tokens
        S = round_up(c.data.max_prompt_tokens, max(self.unit, sampler.PROMPT_STEP))
        chunk = min(c.rollout.chunk, max(T - 1, 1))
        C = round_up(round_up(T - 1, chunk), self.unit)
        own = ceil_div(P, shards)  # questions of a device
        slots = c.rollout.slots
        Q = ceil_div(slots, shards) if 0 < slots < own * shards else 0
        block = max(1, min(own, sampler.PREFILL_TOKENS // S))
        token = 2 * L * m.num_kv_heads * E * self.size  # keys and values, all heads
        prompts, live = own * S * token, Q or own
        held = {
            "decode weights": self.numbers(sharding.RULES | {"embed": None}) * self.size,
            "rollouts": 2 * own * G * 8 * (1 + C),  # as they are drawn, and as they are returned
        }
        # Unnormalised log-probs and probabilities; once more where parts of a split vocabulary are brought together.
        copies = 2 + (self.mesh.shape["tensor"] > 1)
        passes = {
            "gathered": self.table(self.size) + self.gathered(self.size),
            "activations": self.layer(block, S, False, self.size),
        }
        draws = {"logits": copies * 4 * own * G * V}
        prefill = held | {"prompt KV": 2 * prompts + block * S * token}  # by block, by layer, and the block's own
        prefill |= max(passes, draws, key=lambda kinds: sum(kinds.values()))
        # The cache is split as the key heads are that write it; prompts are whole.
        cache = live * G * 2 * L * self.split(m.num_kv_heads) * E * self.size
        rows, inner = live * G, self.size * self.split(m.mlp_width)
        decode = held | {
            "prompt KV": prompts + Q * S * token,
            "completion KV": cache * C + cache // L * (C // 2),  # and of the layer that grows, half
        }
        passes = {"activations": rows * (self.size * 4 * D + 3 * max(4 * self.heads * (S + C), inner))}
        draws = {"logits": copies * 4 * rows * V}
        decode |= max(passes, draws, key=lambda kinds: sum(kinds.values()))
        return {"prefill": prefill, "decode": decode}

    def update(self):
        """Yields the two moments of a micro-batch that need most: its loss, and the backward pass of a layer."""
        c, m, h, rule = self.config, self.model, self.config.learner, self.rule
        S, T, G = c.data.max_prompt_tokens, c.rollout.max_tokens, c.rollout.group_size
        V, D = m.vocab_size, m.width
        rows, length = h.micro_rows // self.shards, round_up(S + T, self.unit)
        tokens = rows * length * self.size
        numbers = self.numbers()
        saved = m.num_layers * tokens * D
        if not h.remat:
            scores = 4 * rows * self.heads * length**2 if length <= attention.QUERY_BLOCK and not self.fused else 0
            saved = m.num_layers * (tokens * (14 * D + 5 * self.split(m.mlp_width)) + scores)
        # Every device holds all rows, cut up and in order: a random permutation of a split axis gathers it.
        batch = rule.batch_size * G * 4 * (length + 4 * T)
        head = self.numbers(sharding.RULES | {"embed": None}, ["embed" if m.tie_embeddings else "head"])
        shared = {
            "rows": batch + (self.groups(rule.batch_size) if rule.num_replayed else 0),
            "gradients": numbers * (4 + self.size),  # the sum over micro-batches, and one's own
        }
        # Log-probs, probabilities and gradient; and again the parts brought together.
        copies = 3 + (self.mesh.shape["tensor"] > 1)
        head_copies = 4 * (self.size < 4)  # the loss is in float32
        head_copies += self.size * (2 * (self.mesh.shape["fsdp"] > 1) + m.tie_embeddings)  # with its own gradient
        yield (
            "loss",
            shared
            | {
                "gathered": head * head_copies,
                "activations": saved + 3 * tokens * D,
                "logits": copies * 4 * rows * min(h.logits_chunk, T) * V,
            },
        )
        own = {"gathered": self.gathered(self.size), "activations": saved + self.layer(rows, length, True, self.size)}
        yield "backward", shared | own

    def tokens(self) -> dict[str, float]:
        """Tokens of a training step at most, all completions being as long as they may be."""
        c, rule = self.config, self.rule
        row = c.rollout.group_size * c.rollout.max_tokens
        prompt = c.rollout.group_size * c.data.max_prompt_tokens
        return {
            "generated": self.sampled["fresh"][0] * row,
            "generated for references": self.asked / c.selection.interval * row,
            "trained": rule.batch_size * row,
            "trained, prompts too": rule.batch_size * (row + prompt),
        }

    def flops(self) -> dict[str, float]:
        """FLOPs of a training step at most, and of an evaluation: matrix products and causal attention."""
        c, h, rule = self.config, self.config.learner, self.rule
        m, S, T, G = self.model, c.data.max_prompt_tokens, c.rollout.max_tokens, c.rollout.group_size
        body, head = 2 * shapes.count(m, embeddings=False), 2 * m.vocab_size * m.width
        key = 4 * m.num_layers * m.num_heads * m.head_width  # of one token with one key

        def seen(n):  # keys, by n tokens from the first on
            return n * (n + 1) // 2

        def question(G):  # its prompt once, and G completions
            decode = body * (T - 1) + key * (seen(S + T - 1) - seen(S)) + head * T
            return body * S + key * seen(S) + G * decode

        forward = body * (S + T) + key * seen(S + T) + head * T
        rows = rule.batch_size * G
        # Forward 1, backward 2; layers again where they are recomputed, and the head always.
        update = rows * forward * 3 + rows * (forward if h.remat else head * T)
        if rule.num_replayed and losses.needs_proximal(losses.find(h.loss)) and h.minibatches > 1:
            update += rule.num_replayed * G * forward
        exams = self.exams
        return {
            "sampling": self.sampled["fresh"][0] * question(G),
            "references": self.asked / c.selection.interval * question(G),
            "update": update + (rows * forward if h.kl_coef else 0),
            "evaluation": exams * question(c.eval.samples) + exams * question(1) * bool(c.eval.greedy),
        }
