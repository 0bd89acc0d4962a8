"""Numbers, times and tables as the screens show them."""

from collections.abc import Sequence

WIDTH = 100  # columns of a screen at most


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lines of cells: columns as wide as their widest cell, the first flush left, the others flush right."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [
        name.ljust(first) + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, others, strict=True))
        for name, *cells in rows
    ]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def duration(seconds: float) -> str:
    """Seconds as `12 s`, `4:05` or `1:02:03`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def gib(size: float) -> str:
    """Bytes as `69.4 GiB` or `12.5 MiB`."""
    return f"{size / 2**30:.1f} GiB" if size > 2**30 / 10 else f"{size / 2**20:.1f} MiB"


def short(value: float) -> str:
    """A count in three digits: `317k`, `1.54B`."""
    for size, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            digits = value / size
            return f"{digits:.0f}{suffix}" if digits >= 100 else f"{digits:.3g}{suffix}"
    return f"{value:.0f}"
