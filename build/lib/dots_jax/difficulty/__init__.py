"""Difficulty of questions: failure rates predicted from embeddings and the measured rates of a few references."""

import importlib

_FROM = {"predict": "predictor", "load_released": "predictor", "report": "measures"}


def __getattr__(name: str):
    """The functions of `_FROM`, imported at first use: a run that predicts nothing does without Flax."""
    if name in _FROM:
        return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
