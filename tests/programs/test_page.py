"""The run page, written from a small workdir made by hand and opened in a browser."""

import json
import os
import re
import shutil
import subprocess

import pytest

from dots_jax import page
from dots_jax.core import command_line
from dots_jax.core.files import ROOT

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
HOSTILE = "</script><!--<script><img src=x onerror='document.body.dataset.harmed=1'>"
EMOJI = "π🙂"


def write(workdir, steps=4, batch=3, pool=8):
    """A run that replays; question i is right in i of 8 completions. Question 0 is hostile."""
    workdir.mkdir()
    config = command_line.load(os.path.join(ROOT, "configs", "quickstart.py")).to_dict()
    config["name"], config["train"]["steps"] = HOSTILE, steps + 1
    files = {"config.json": [config], "metrics.jsonl": [], "groups.jsonl": [], "completions.jsonl": []}
    files["questions.jsonl"] = [
        {
            key: i,
            "family": f"f{i % 2}",
            "level": 1,
            "problem": f"{key} {i} {HOSTILE if i == 0 else EMOJI}",
            "answer": "7",
        }
        for key in ("id", "heldout")
        for i in range(pool)
    ]

    def completion(step, kind, question, sample, **more):
        right = sample < question
        row = {"step": step, "kind": kind, "question": question, "sample": sample, "extracted": "7" if right else None}
        row |= {"completion": f"{EMOJI}{HOSTILE if question == 0 else sample}", "reward": float(right), "tokens": 3}
        return row | {"verdict": "correct" if right else "no_answer", "truncated": False} | more

    for step in range(steps + 1):
        row = {"step": step, "ledger/generated_tokens": 100 * step, "seconds": step}
        if step % 2 == 0:
            row |= {"eval/accuracy": 0.5, "eval/by_level": {"f0": [0.4], "f1": [0.6, None]}}
            files["completions.jsonl"] += [completion(step, "evaluation", i, 0) for i in range(pool)]
        files["metrics.jsonl"].append(row | {"train/reward": 0.1 * step})
        if step:
            ids = [(step - 1 + i) % pool for i in range(batch)]
            record = {"step": step, "rollouts": 8, "ids": ids, "successes": ids, "tokens": [3.0] * batch}
            record |= {"predicted": [0.9 - 0.1 * i for i in ids], "replayed": [step - 2], "replayed_from": [step - 1]}
            files["groups.jsonl"].append(record)
            values = {f"token_{name}": [-0.5, -1e-6, -2.0] for name in ("logprobs", "logprob_diffs", "entropies")}
            values["token_lengths"] = [1, 1, 2]
            files["completions.jsonl"] += [completion(step, "fresh", ids[0], j, **values) for j in range(8)]
    for name, rows in files.items():
        (workdir / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def workdir(tmp_path):
    write(tmp_path / "run")
    return tmp_path / "run"


def browse(path, address=""):
    """What the page has become once its script has run."""
    if not BROWSER:
        pytest.skip("no Chromium")
    command = [BROWSER, *FLAGS, f"--user-data-dir={path.parent / 'browser'}", "--dump-dom", f"{path.as_uri()}{address}"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert re.search(r'<div id="errors">([^<]*)', dom)[1] == ""
    assert 'data-ready="1"' in dom
    return dom


def test_in_a_browser(workdir, capsys):
    assert page.main([str(workdir)]) == 0
    assert capsys.readouterr().out == f"{workdir}/page.html\n"
    dom = browse(workdir / "page.html", "#sort=-mean&question=0&verdict=correct")
    # Questions 0 to 5 were measured; the best come first, here and in the table.
    assert 'data-rows="6" data-order="5,4,3,2,1,0"' in dom
    assert re.findall(r'<tr class="click[^>]*data-id="(\d+)"', dom) == list("543210")
    assert 'class="click on" data-id="0"' in dom
    # Of eight held-out questions asked three times one is never right.
    assert 'data-hits="21"' in dom
    for said in ("f1</td><td>0.600</td>", "settings that differ", "step 4 of 5: going on, or ended early"):
        assert said in dom
    # What a completion says is text, wherever it stands; its tokens are coloured, of two code units too.
    assert "data-harmed" not in dom
    assert dom.count("<script") == 2
    assert 'title="&quot;🙂&quot;  probability 1.000, learner − sampler -0.000001' in dom
    spans = re.findall(r'<span style="background:rgba\(217,119,6,([\d.]+)\)" title="[^"]*">([^<]*)</span>', dom)
    assert len(spans) == 8 * 3
    assert [text for _, text in spans[:3]] == ["π", "🙂", "&lt;/"]
    assert float(spans[2][0]) > float(spans[0][0]) > float(spans[1][0]) == 0
    dom = browse(workdir / "page.html", "#question=1&find=id+1&colour=difference&dense=1&x=tokens")
    assert 'data-rows="1"' in dom and "replayed at step 3, age 1" in dom


def test_an_old_run_has_a_page(workdir):
    for name in ("completions.jsonl", "questions.jsonl", "groups.jsonl"):
        (workdir / name).unlink()
    assert page.main([str(workdir)]) == 0
    assert 'data-rows="0"' in browse(workdir / "page.html")


def test_the_page_needs_nothing_else(workdir):
    page.main([str(workdir)])
    text = (workdir / "page.html").read_text()
    assert set(re.findall(r"\w+://[^\"' ]*", text)) == {"http://www.w3.org/2000/svg"}  # a name, which nobody opens
    assert "default-src 'none'" in text and not re.search(r"\b(?:src|href)=\"|@import|url\(", text)


def test_much_is_thinned_and_said(workdir, monkeypatch):
    from dots_jax.run import page as pages

    monkeypatch.setattr(pages, "_ALL", 600)
    page.main([str(workdir)])
    text = (workdir / "page.html").read_text()
    left = json.loads(re.search(r'"left_out":(\[[^]]*\])', text)[1])
    assert [line.partition(" of the ")[2] for line in left] == ["kept groups", "held-out questions"]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.json", None, "holds no readable config.json"),
        ("metrics.jsonl", None, "holds no metrics.jsonl of a run"),
        ("groups.jsonl", '{"step":1,"ids":["a"],"successes":[1],"rollouts":8}\n', "not as a run writes them"),
        ("groups.jsonl", '{"step":1,"ids":[1,2],"successes":[1],"rollouts":8}\n', "not as a run writes them"),
        ("completions.jsonl", '{"step":1,"kind":"fresh"}\n', "not as a run writes them"),
        ("questions.jsonl", "?\n", "not as a run writes them"),
    ],
)
def test_what_is_no_run_is_said_in_a_line(workdir, capsys, file, text, said):
    (workdir / file).write_text(text) if text else (workdir / file).unlink()
    assert page.main([str(workdir)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and said in err and err.count("\n") == 1
    assert not (workdir / "page.html").exists()
