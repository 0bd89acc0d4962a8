"""What a run keeps of the code and the versions that it was started with."""

import json
import os
import subprocess

import pytest

from dots_jax.core import files
from dots_jax.run import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout in place of ours, with one file that is committed."""
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "a.py").write_text("a = 1\n")
    monkeypatch.setattr(files, "ROOT", str(root))
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "m"]):
        subprocess.run(["git", "-C", root, *words], check=True)
    return root


@pytest.fixture
def start(tmp_path):
    """Starts a run; returns its entry and the diffs that are kept, by name."""
    workdir = tmp_path / "run"
    workdir.mkdir()

    def start():
        provenance.record(str(workdir))
        kept = {path.name: path.read_text() for path in workdir.glob("code*")}
        return json.loads((workdir / provenance.VERSIONS).read_text()), kept

    return start


def test_every_start_has_its_versions_and_what_no_commit_has(checkout, start):
    (entry,), kept = start()
    commit = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert entry["commit"] == commit.strip() and entry["diff"] is None and not kept
    assert {"python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "transformers", "platform"} < {
        *entry
    }
    assert entry["device"].endswith("cpu") and "command" in entry and "XLA_FLAGS" in entry
    (checkout / "a.py").write_text("a = 2\n# é\r\n", newline="")
    for count in (2, 3):
        entries, kept = start()
        assert len(entries) == count and entries[-1]["diff"] == "code.diff" and [*kept] == ["code.diff"]
        assert "-a = 1\n+a = 2" in kept["code.diff"]
    (checkout / "new.py").write_text("b = 3\n")
    entries, both = start()
    assert [entry["diff"] for entry in entries] == [None, "code.3.diff", "code.3.diff", "code.diff"]
    assert both["code.3.diff"] == kept["code.diff"] and "+b = 3" in both["code.diff"]
    (checkout / "a.py").write_text("a = 1\n")
    (checkout / "new.py").unlink()
    entries, kept = start()
    assert entries[-1]["diff"] is None and sorted(kept) == ["code.3.diff", "code.4.diff"]


def test_a_large_difference_is_cut(checkout, start):
    (checkout / "a.py").write_text("a = 1\n" * 2**18)
    _, kept = start()
    assert len(kept["code.diff"]) < 2**20 + 200 and "only 1,048,576 characters" in kept["code.diff"]


@pytest.mark.parametrize("where", ["no git", "no checkout", "in another's checkout"])
def test_without_a_checkout_there_is_no_commit(checkout, start, monkeypatch, tmp_path, where):
    if where == "no git":
        monkeypatch.setenv("PATH", "")
    else:
        root = (tmp_path if where == "no checkout" else checkout) / "site-packages"
        root.mkdir()
        monkeypatch.setattr(files, "ROOT", str(root))
    (entry,), kept = start()
    assert entry["commit"] is None and not kept


@pytest.mark.parametrize("text", ["", "[1", "{}", "[3]", '[{"time": 1}]'])
def test_damaged_entries_are_written_anew(checkout, start, tmp_path, text):
    (tmp_path / "run" / provenance.VERSIONS).write_text(text)
    assert len(start()[0]) == 1 and os.listdir(tmp_path / "run") == [provenance.VERSIONS]
