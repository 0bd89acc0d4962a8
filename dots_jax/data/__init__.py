"""Question pools by name."""

from dots_jax.data import arithmetic
from dots_jax.data.questions import Questions
from dots_jax.errors import UserError

# name -> function of the configuration's `data` fields that returns (pool, held-out)
POOLS = {
    "arithmetic": lambda data: arithmetic.make(data.num_questions, data.num_heldout, data.seed),
}


def load(data) -> tuple[Questions, Questions]:
    """The pool that `data.name` names and its held-out set; `data` holds the configuration's `data` fields.

    Raises UserError for an unknown name.
    """
    if data.name not in POOLS:
        raise UserError(f"config.data.name is {data.name!r}; choose one of: {', '.join(sorted(POOLS))}")
    return POOLS[data.name](data)
