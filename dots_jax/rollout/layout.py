"""What the sampler holds and computes at a time: arithmetic of shapes, which the plan uses too."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dots_jax.core import sharding
from dots_jax.core.arithmetic import ceil_div, round_up
from dots_jax.policy import attention, transformer


def default_slots(platform: str) -> int:
    """Rows decoded at a time, of one device, where there is memory for them."""
    return 128 if platform == "cpu" else 320


@dataclasses.dataclass(frozen=True)
class SamplerSpec:
    """What the programs are compiled for."""

    model_config: transformer.ModelConfig
    mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh
    platform: str
    dtype: jnp.dtype
    slots: int  # rows decoded at a time, of one device
    prompt_width: int  # tokens
    max_tokens: int  # of a completion
    chunk: int  # decode steps between two looks at the rows

    @property
    def unit(self) -> int:
        """What lengths are multiples of."""
        return sharding.length_unit(self.platform)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of slots, of one device, that there are programs for; ascending."""
        return tuple(sorted({ceil_div(self.slots, n) for n in (1, 2, 4)}))

    def size_for(self, rows: int) -> int:
        """The smallest of `sizes` that holds so many rows of a device; the largest where none does."""
        return next((size for size in self.sizes if size >= rows), self.slots)

    @property
    def spares_rows(self) -> bool:
        """Whether dead rows behind the live ones are not computed: on CPUs, where products cost what their rows do."""
        # With a tensor axis the branches would hold collectives, which devices must run equally often.
        return self.platform == "cpu" and self.mesh.shape["tensor"] == 1

    def live_bound(self, live: int) -> int:
        """The number of leading slots, of one device, that are computed where so many of them live."""
        sizes = [n for size in self.sizes for n in (transformer.live_sizes(size) if self.spares_rows else [size])]
        return min(n for n in sizes if n >= live)

    @property
    def prefill_widths(self) -> tuple[int, ...]:
        """Tokens of a block of prompts as prefill takes it: of long prompts, and where these are long of short ones."""
        width = round_up(self.prompt_width, self.unit)
        narrow = round_up(ceil_div(width, 4), self.unit)
        return (narrow, width) if narrow >= 64 and narrow < width else (width,)

    @property
    def fused(self) -> bool:
        """Whether a row's cache is whole and read by cuDNN's kernel; `kv` says what else there is."""
        kernel = attention.kernel(self.platform, self.dtype, self.model_config.head_width)
        return kernel == "cudnn" and self.mesh.shape["tensor"] == 1

    def first_slot(self, last: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
        """The slot of its cache where a row begins whose prompt's last token is at `last`, which is decoded."""
        return 0 * last if self.fused else -last % self.chunk  # chunks begin at whole ones

    @property
    def pieces(self) -> tuple[int, ...]:
        """Slots of each piece of a row's cache: one for all, or in whole chunks for all but those of its last chunk."""
        if self.fused:
            return (round_up(self.prompt_width + self.max_tokens - 1, self.unit),)  # the last one drawn is never read
        capacity = round_up(self.prompt_width - 1, self.chunk) + round_up(self.max_tokens, self.chunk) - self.chunk
        size, pieces = round_up(max(self.unit, 64), self.chunk), []
        while capacity > 0:
            pieces.append(min(size, capacity))
            capacity, size = capacity - pieces[-1], max(size, sum(pieces))
        return tuple(pieces)

    def prompt_slots(self, width: int) -> int:
        """Slots of the cache that prompts of at most so many tokens reach into."""
        return min(round_up(width - 1, self.chunk), sum(self.pieces))

    @property
    def prefill_questions(self) -> int:
        """Questions of one device that are prefilled at a time."""
        return max(1, (512 if self.platform == "cpu" else 2048) // self.prefill_widths[-1])
