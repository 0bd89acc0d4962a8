"""What a run will need of each device, and compute in each step, by arithmetic on its config and the policy's shape.

Nothing is allocated or compiled, and the devices planned for need not exist. Parameters, optimizer, buffer, rollouts
and caches are counted exactly. What the compiler adds (activations, logits, copies that it gathers) is counted in
buffers that XLA was seen to hold at once. Its own analysis of programs compiled for CPUs is 0.7 to 1.5 times that
(tests/test_plan.py has some of them); on other backends it can differ more.

Letters as in `qwen2`: P questions, G completions of each, S prompt and T completion tokens, V, D, L, H, K, E, F.
"""

import dataclasses
import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dots_jax import advice, experiment, selection
from dots_jax.core import runtime, sharding
from dots_jax.core.errors import UserError
from dots_jax.core.text import gib
from dots_jax.data import sources
from dots_jax.difficulty import embed
from dots_jax.learner import losses, replay
from dots_jax.policy import attention, qwen2, shapes, source
from dots_jax.rollout import sampler

GIB = 2**30
UNITS = {"GB": 10**9, "GiB": GIB}
_UNKNOWN = 1000  # questions of a set or pool that is only read when the run begins
_DEVICES, _MEMORY = 8, "80GB"  # where neither flags nor JAX say


@dataclasses.dataclass(frozen=True)
class Plan:
    """Bytes, tokens and FLOPs of a run; all but bytes over all devices."""

    mesh: dict[str, int]
    device_bytes: float  # that the run may use of one device
    parameters: int  # of the policy
    phases: dict[str, dict[str, int]]  # phase -> kind -> bytes on each device
    tokens: dict[str, float]  # of a training step, at most
    flops: dict[str, float]  # of a training step, at most; of one evaluation
    sampled: int  # questions at most in a call of the sampler
    advice: tuple[str, ...] = ()  # changes that make it fit, each planned again

    @property
    def totals(self) -> dict[str, int]:
        """Bytes on each device in each phase."""
        return {phase: sum(kinds.values()) for phase, kinds in self.phases.items()}

    @property
    def peak(self) -> int:
        """The most bytes on each device."""
        return max(self.totals.values())

    @property
    def fits(self) -> bool:
        """Whether the run may use that much of a device."""
        return self.peak <= self.device_bytes


def plan(config, model: qwen2.Config, devices: int, device_bytes: float, platform: str = "gpu") -> Plan:
    """The plan of a run of `config` with a policy of shape `model`, with advice where it does not fit.

    Args:
      config: of the run.
      model: shape of its policy.
      devices: how many.
      device_bytes: what the run may use of each.
      platform: gpu, tpu or cpu: on GPUs attention in 16 bits never holds scores, and CPUs pad less.

    Raises:
      UserError: the mesh is not of so many devices, or the batch does not divide over it.
    """
    made = _plan(config, model, devices, device_bytes, platform)
    if made.fits:
        return made
    attempt = functools.partial(_attempt, config, model, device_bytes, platform)
    return dataclasses.replace(made, advice=tuple(advice.lines(config, made, attempt)))


def _attempt(config, model, memory, platform, changes: dict, devices: int) -> Plan | None:
    """The plan with `changes` on so many devices; None where they do not go together."""
    try:
        changed = _changed(config, changes)
        experiment.check(changed)
        return _plan(changed, model, devices, memory, platform)
    except UserError:
        return None


def _changed(config, changes: dict):
    copy = config.copy_and_resolve_references()
    copy.unlock()
    for field, value in changes.items():
        *path, name = field.split(".")
        part = copy
        for step in path:
            part = part[step]
        part[name] = value
    return copy


def _plan(config, model, devices, device_bytes, platform) -> Plan:
    sizes = sharding.axis_sizes(*(config.mesh[axis] for axis in sharding.AXES), devices)
    mesh = jax.sharding.AbstractMesh(sizes, sharding.AXES)
    sharding.check_heads(mesh, model.num_kv_heads)
    rule = replay.Rule(config.train.questions, config.selection.every, **config.replay)
    experiment.check_loaded(config, rule, sharding.num_row_shards(mesh), model, 1, config.data.num_questions)
    dtype = jnp.dtype(config.policy.dtype)
    run = _Run(config, model, mesh, rule, dtype.itemsize, platform)
    return Plan(
        mesh=dict(mesh.shape),
        device_bytes=device_bytes,
        parameters=shapes.count(model),
        phases=run.phases(),
        tokens=run.tokens(),
        flops=run.flops(),
        sampled=max(P for P, _ in run.sampled.values()),
    )


@dataclasses.dataclass(frozen=True)
class _Run:
    """A run on a mesh: what its parts hold on each device, in bytes."""

    config: ConfigDict
    model: qwen2.Config
    mesh: jax.sharding.AbstractMesh
    rule: replay.Rule
    size: int  # bytes of a number of the policy
    platform: str

    @property
    def fused(self) -> bool:
        """Whether attention never holds scores."""
        return self.platform == "gpu" and self.size == 2

    @property
    def unit(self) -> int:
        return sharding.length_unit(self.platform)

    @property
    def shards(self) -> int:
        return sharding.num_row_shards(self.mesh)

    @property
    def sampled(self) -> dict[str, tuple[int, int]]:
        """(P, G) of each kind of call of the sampler."""
        c = self.config
        group = c.rollout.group_size
        calls = {
            "fresh": (max(self.rule.fresh_groups(step) for step in range(1, c.train.steps + 1)), group),
            "evaluation": (min(c.eval.batch or self.exams, self.exams), c.eval.samples),
        }
        return calls | ({"reference": (self.asked, group)} if self.asked else {})

    @property
    def exams(self) -> int:
        """Questions of an evaluation."""
        c = self.config
        if c.data.name == "arithmetic":
            return c.data.num_heldout
        sizes = [sources.SETS[n].size if n in sources.SETS else _UNKNOWN for n in sources.names(c.eval.sets)]
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
        return -(-count // self.shards) * (rollouts + 4 * G + 4 * 3)

    def phases(self) -> dict[str, dict[str, int]]:
        """Bytes by phase and kind; every kind of a phase is there at the same time."""
        c, count, rule = self.config, self.numbers(), self.rule
        fresh = self.sampled["fresh"][0]
        resident = {
            "parameters": count * self.size,
            "optimizer": count * (8 if self.size == 4 else 12),  # two moments, and a float32 copy
            "reference policy": count * self.size if c.learner.kl else 0,
            "replay buffer": self.groups(rule.slots) if rule.draws else 0,
        }
        # The loop's variables keep a step's rollouts until the next ones are there.
        kept = self.groups(rule.questions) + self.groups(fresh) * bool(rule.draws) + self.groups(self.asked)
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
        block = 0 if self.fused else 4 * rows * self.heads * min(length, attention._QUERY_BLOCK) * length
        wide = tokens * self.model.width
        return 8 * wide + 3 * inner + 4 * block if backward else 3 * wide + 2 * max(inner, block)

    def score(self) -> dict[str, int]:
        """Embedding the pool with a frozen model of the policy's shape, and what the predictor reads."""
        c, m = self.config, self.model
        held = -(-c.data.num_questions // self.shards) * 4 * (m.width + c.predictor.width)
        if c.embedding.path.endswith(".npy"):
            return {"pool": held}
        size = jnp.dtype(c.embedding.dtype).itemsize
        longest = sharding.round_up(min(c.embedding.max_tokens, c.data.max_prompt_tokens), self.unit)
        rows = -(-max(1, embed.BATCH_TOKENS // longest) // self.shards)
        return {
            "pool": held,
            "embedding model": self.numbers() * size,
            "gathered": self.table(size) + self.gathered(size),
            "activations": self.layer(rows, longest, False, size),
        }

    def sample(self):
        """Yields prefill and decoding of the call of the sampler that needs most."""
        calls = [self.one_sample(*call) for call in self.sampled.values()]
        for phase in ("prefill", "decode"):
            yield phase, max((call[phase] for call in calls), key=lambda kinds: sum(kinds.values()))

    def one_sample(self, P: int, G: int) -> dict[str, dict[str, int]]:
        c, m, shards = self.config, self.model, self.shards
        V, D, L, E = m.vocab_size, m.width, m.num_layers, m.head_width
        T = c.rollout.max_tokens
        S = sharding.round_up(c.data.max_prompt_tokens, max(self.unit, sampler._PROMPT_STEP))
        chunk = min(c.rollout.chunk, max(T - 1, 1))
        C = sharding.round_up(sharding.round_up(T - 1, chunk), self.unit)
        own = -(-P // shards)  # questions of a device
        slots = c.rollout.slots
        Q = -(-slots // shards) if 0 < slots < own * shards else 0
        block = max(1, min(own, sampler._PREFILL_TOKENS // S))
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
        rows, length = h.micro_rows // self.shards, sharding.round_up(S + T, self.unit)
        tokens = rows * length * self.size
        numbers = self.numbers()
        saved = m.num_layers * tokens * D
        if not h.remat:
            scores = 4 * rows * self.heads * length**2 if length <= attention._QUERY_BLOCK and not self.fused else 0
            saved = m.num_layers * (tokens * (14 * D + 5 * self.split(m.mlp_width)) + scores)
        # Every device holds all rows, cut up and in order: a random permutation of a split axis gathers it.
        batch = rule.questions * G * 4 * (length + 4 * T)
        head = self.numbers(sharding.RULES | {"embed": None}, ["embed" if m.tie_embeddings else "head"])
        shared = {
            "rows": batch + (self.groups(rule.questions) if rule.draws else 0),
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
            "generated for references": self.asked / c.selection.every * row,
            "trained": rule.questions * row,
            "trained, prompts too": rule.questions * (row + prompt),
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
        rows = rule.questions * G
        # Forward 1, backward 2; layers again where they are recomputed, and the head always.
        update = rows * forward * 3 + rows * (forward if h.remat else head * T)
        if rule.draws and losses.needs_proximal(h.loss) and h.minibatches > 1:
            update += rule.draws * G * forward
        exams = self.exams
        return {
            "sampling": self.sampled["fresh"][0] * question(G),
            "references": self.asked / c.selection.every * question(G),
            "update": update + (rows * forward if h.kl else 0),
            "evaluation": exams * question(c.eval.samples) + exams * question(1) * bool(c.eval.greedy),
        }


# ---- Words ---------------------------------------------------------------------------------------------------------


def main(config, devices: int | None, device_memory: str | None) -> int:
    """Prints the report of `--plan`; returns the exit code, 0 where it fits and 3 where not."""
    if not config.policy.path:
        raise UserError("config.policy.path is empty; name a directory or a model such as Qwen/Qwen2.5-Math-7B")
    experiment.check(config)
    path, shape = config.policy.path, config.policy.random.to_dict()
    if shape["width"]:
        model = qwen2.Config(**shape, vocab_size=shapes.TOKENS, num_tokens=shapes.TOKENS)
    else:
        model = shapes.find(source.local(path, sources.root(config.data.root)) or path)
    if not config.data.num_questions:  # all that there are
        known = sources.POOLS.get(config.data.name)
        config = _changed(config, {"data.num_questions": known.size if known else _UNKNOWN})
    memory, notes = read_memory(device_memory) if device_memory else None, []
    fixed = [config.mesh[axis] for axis in sharding.AXES]
    known = None if -1 in fixed else math.prod(fixed)
    here = [] if memory and (devices or known) else _accelerators()
    if devices is None:
        devices = known or len(here) or (1 if shape["width"] else _DEVICES)
        if not known:
            notes.append(
                f"assumed: {devices} devices, {'those here' if here else 'since JAX finds no accelerator'} (--devices)"
            )
    platform = here[0].platform if here else "gpu"
    if memory is None and here and (memory := (here[0].memory_stats() or {}).get("bytes_limit")):
        notes.append(f"assumed: {gib(memory)} of memory, what JAX may use of the ones here (--device_memory)")
    else:
        if memory is None:
            memory = read_memory(_MEMORY)
            notes.append(f"assumed: {gib(memory)} of memory, an H100's (--device_memory)")
        if platform == "gpu":
            notes.append(f"a run takes {runtime.MEMORY_FRACTION:.0%} of the {gib(memory)} ({runtime.MEMORY_VARIABLE})")
            memory *= runtime.MEMORY_FRACTION
    made = plan(config, model, devices, memory, platform)
    print(*notes, sep="\n")
    print(report(made), end="")
    return 0 if made.fits else 3


def _accelerators() -> list:
    """The devices that JAX finds, unless they are CPUs."""
    try:
        found = jax.devices()
    except (RuntimeError, AssertionError):
        return []
    return [] if found[0].platform == "cpu" else found


def read_memory(text: str) -> float:
    """Bytes of `80GB` or `79.6GiB`. Raises UserError."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)\s*([A-Za-z]+)", text)
    units = {name.lower(): size for name, size in UNITS.items()}
    if not match or match[2].lower() not in units or not float(match[1]):
        raise UserError(f"--device_memory={text} is not a size; give one such as 80GB (10^9 bytes each) or 79.6GiB")
    return float(match[1]) * units[match[2].lower()]


def report(plan: Plan) -> str:
    """The plan in at most 100 columns."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    count = math.prod(plan.mesh.values())
    lines = [f"{plan.parameters:,} parameters on {count} device(s) of {gib(plan.device_bytes)}, {mesh}", ""]
    kinds = dict.fromkeys(kind for parts in plan.phases.values() for kind, size in parts.items() if size)
    unit, name = (GIB, "GiB") if plan.peak > GIB / 10 else (2**20, "MiB")
    lines.append(f"{name} per device".ljust(20) + "".join(phase.rjust(11) for phase in plan.phases))
    for kind in kinds:
        cells = (f"{parts[kind] / unit:.2f}" if parts.get(kind) else "" for parts in plan.phases.values())
        lines.append(kind.ljust(20) + "".join(cell.rjust(11) for cell in cells))
    lines.append("total".ljust(20) + "".join(f"{total / unit:.2f}".rjust(11) for total in plan.totals.values()))
    where = max(plan.totals, key=plan.totals.get)
    share = plan.peak / plan.device_bytes
    lines += ["", f"peak {gib(plan.peak)} in {where}, {share:.0%} of a device"]
    left = plan.device_bytes - plan.peak
    lines[-1] += f": fits, {gib(left)} are left" if plan.fits else f": does not fit, {gib(-left)} are lacking"
    for line in plan.advice:
        lines += _wrap(f"  {line}")
    lines += ["", "a training step, if all completions are as long as they may be"]
    lines += [f"  tokens {name}".ljust(34) + f"{value:>16,.0f}" for name, value in plan.tokens.items() if value]
    flops = dict(plan.flops)
    exam = flops.pop("evaluation")
    lines += [f"  FLOPs of {name}".ljust(34) + f"{value:>16.3g}" for name, value in flops.items() if value]
    lines.append("  FLOPs in all".ljust(34) + f"{sum(flops.values()):>16.3g}")
    lines.append("an evaluation apart from that, FLOPs".ljust(34) + f"{exam:>14.3g}")
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _wrap(line: str, width: int = 100) -> list[str]:
    """Lines of at most `width`, cut at spaces, the later ones further in."""
    out = [""]
    for word in re.findall(r"\s*\S+", line):
        if len(out[-1]) + len(word) > width:
            out.append("     ")
        out[-1] += word
    return out
