"""The fields of a config by dotted name."""

from typing import Any


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of a nested dictionary."""
    flat = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def replaced(config, changes: dict[str, Any]):
    """A copy of a ConfigDict with other values of the dotted fields."""
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict(changes)
    return copy
