"""The examples of docs/extending.md and docs/usage.md, run as written."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks import faults
from dots_jax.core import files, plugins
from dots_jax.core.errors import UserError

TEXT = Path(files.ROOT, "docs", "extending.md").read_text()


def test_examples(compiled, tmp_path):
    """Each is at most 20 lines, and all together train; a second start goes on where they are as they were."""
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, re.DOTALL):
        assert code.count("\n") <= 20
        (tmp_path / name).write_text(code)
    commands = re.findall(r"^    python -m dots_jax.main (.*)$", TEXT, re.MULTILINE)
    own = [flag for command in commands for flag in command.split()]
    assert sum(".py:" in flag for flag in own) == len(list(tmp_path.glob("*.py")))

    def train(steps):
        fields = faults.FIELDS | {"train.steps": steps}
        flags = [f"--config.{name}={value}" for name, value in fields.items()]
        command = [sys.executable, "-m", "dots_jax.main", "--workdir=run", *flags, *own]
        env = os.environ | compiled | {"PYTHONPATH": files.ROOT}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)

    done = train(2)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "run" / "groups.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    file = next(tmp_path.glob("*.py"))
    file.write_text(file.read_text() + "# changed\n")
    done = train(3)
    assert done.returncode == 2 and "began with another" in done.stderr and done.stderr.count("\n") == 1


def test_library(monkeypatch, capsys):
    monkeypatch.chdir(files.ROOT)
    text = Path("docs", "usage.md").read_text().partition("## As a library")[2]
    names = {}
    exec(textwrap.dedent(text), names)
    assert capsys.readouterr().out.count("\n") == 1 and names["rollouts"].tokens.shape == (2, 8, 32)
    assert names["logp"].shape == names["entropy"].shape == names["prompts"].shape


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unifrom", "did you mean uniform.*one of uniform, dots, .*, oracle, or your own as MODULE:NAME"),
        ("nothing.py:Short", "no file nothing.py here or beside the config"),
        ("no_such_module:Short", "no_such_module cannot be loaded .ModuleNotFoundError"),
        ("dots_jax.selection.dots:Spots", "has no Spots; did you mean Dots.$"),
        ("broken.py:Short", "cannot be loaded .ZeroDivisionError: division by zero"),
        (":", "give one of"),
        ("", "give one of"),
    ],
)
def test_mistakes(name, message, tmp_path, monkeypatch):
    from dots_jax import selection

    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.setattr(plugins, "FOLDERS", ["", str(tmp_path)])
    with pytest.raises(UserError, match=f"config.selection.name.*{message}"):
        selection.find(name)
