import pytest

from benchmarks import peers_update
from dots_jax.core.errors import UserError


def test_an_update_beside_pytorchs():
    """Both see the same loss before anything has moved, with and without groups that have no gradient."""
    pytest.importorskip("torch")
    flags = ["--questions=4", "--group=4", "--prompt=5", "--max-tokens=12", "--mean=6", "--useful=0.5", "--repeats=1"]
    record = peers_update.main([*flags, "--micro-rows=4", "--micro-tokens=32", "--peak=0.1"])
    losses = record["losses"]
    assert losses["dots_jax"] == pytest.approx(losses["plain"], abs=2e-6)
    assert losses["skips"] == pytest.approx(losses["plain"], abs=2e-6)
    assert set(record["ratio"]) == {"skips", "plain"} and 0 < record["peak_share"]["median"] < 1


def test_without_pytorch(monkeypatch):
    monkeypatch.setattr(peers_update.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install torch transformers"):
        peers_update.main([])
