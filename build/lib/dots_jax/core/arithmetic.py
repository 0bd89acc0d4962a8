"""Whole numbers rounded up."""


def ceil_div(count: int, size: int) -> int:
    """Returns how many parts of `size` hold `count`."""
    return -(-count // size)


def round_up(length: int, unit: int) -> int:
    """Returns the least multiple of `unit` that is at least `length`."""
    return ceil_div(length, unit) * unit
