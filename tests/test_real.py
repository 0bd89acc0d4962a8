"""Pools and evaluation sets of real questions: small files written here, and the real ones where DOTS_DATA is."""

import json
import os
import subprocess
import sys
import types
import unicodedata

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dots_jax import data as question_sets
from dots_jax import main, selection
from dots_jax.core import command_line, config_rules, files
from dots_jax.core.errors import UserError
from dots_jax.data import real, sources
from dots_jax.policy import tokenizer as tok

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A directory with a pool of twelve rows and an evaluation set; the current one is another."""
    monkeypatch.delenv("DOTS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "root"
    rows = [{"problem": f"What is {word}?", "answer": str(i), "num_correct": i % 5} for i, word in enumerate(WORDS)]
    rows.append({"problem": "what is  $two$?", "answer": "1", "num_correct": 3})  # as the second, but for spacing
    rows.append({"problem": "What is - two?", "answer": "-1", "num_correct": 3})  # not the same
    write(folder / "train" / "orz.jsonl", rows)
    write(folder / "eval" / "gsm8k.jsonl", [{"question": "WHAT is: three", "answer": "so it is\n#### 2"}])
    return folder


class Dataset(list):
    """What of a hub's dataset is used."""

    column_names = ("r1_solution_1",)

    def remove_columns(self, names):
        assert names == ["r1_solution_1"]
        return self


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def settings(root, **fields):
    c = command_line.load("configs/orz.py:tiny")
    c.data.root, c.data.num_questions, c.eval.sets, c.eval.questions = str(root), 0, "gsm8k", 0
    c.data.update({"max_prompt_tokens": 100} | fields)
    return c


def load(c, tokens=lambda texts: [len(t) for t in texts]):
    return real.load(c.data, c.eval, tokens)


def test_cleaning_keeps_names(root):
    pool, exam = load(settings(root))
    assert list(pool.names) == [f"orz:{i}" for i in (0, 1, 3, 4, 5, 6, 7, 8, 9, 11)]
    assert pool.left_out == (("orz:2", "in the evaluation set gsm8k"), ("orz:10", "the same as orz:1"))
    assert pool.labels.tolist() == [0, -2, -3, -4, 0, -1, -2, -3, -4, -3]  # more solved is easier; -1 and -3 averaged
    assert (exam.texts, exam.answers, exam.families) == (("WHAT is: three",), ("2",), ("gsm8k",))
    for said in ("12 rows", "1 repeated", "1 in the evaluation set gsm8k", str(root)):
        assert said in pool.about
    short, _ = load(settings(root, max_prompt_tokens=12))
    kept = [len(t) <= 12 for t in pool.texts]
    assert short.names == tuple(n for n, keep in zip(pool.names, kept, strict=True) if keep)
    assert dict(short.left_out)["orz:3"] == "a prompt of more than 12 tokens" and 0 < len(short) < len(pool)


def test_the_most_frequent_answer_of_a_repeated_question_stays(root):
    rows = [{"problem": "Six times 7", "answer": a} for a in ("13", "42", "42")]
    path = write(root / "mine.jsonl", [*rows, {"problem": "other", "answer": "1"}])
    pool, _ = load(settings(root, name=path))
    assert pool.answers == ("42", "1") and pool.names == ("mine:0", "mine:3") and np.isnan(pool.labels).all()


def test_subsets_by_seed(root):
    everything, _ = load(settings(root))
    draws = {seed: load(settings(root, num_questions=4, seed=seed))[0].names for seed in range(8)}
    assert all(len(d) == 4 and set(d) < set(everything.names) for d in draws.values()) and len(set(draws.values())) > 4
    assert draws[0] == load(settings(root, num_questions=4))[0].names
    more = load(settings(root, num_questions=5))[0].names
    assert set(draws[0]) < set(more) and list(more) == sorted(more, key=lambda n: int(n[4:]))
    assert "fewer than data.num_questions=99" in load(settings(root, num_questions=99))[0].about


def test_what_publishers_call_their_columns(root, monkeypatch):
    wanted = {"problem": "How many?", "answer": "7"}
    conversation = [{"from": "human", "value": "How many?"}, {"from": "assistant", "ground_truth": {"value": "7"}}]
    chat = {"prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": "How many?"}]}
    for row in (
        wanted,
        {"question": "How many?", "answer": 7},
        {"question": " How many? ", "final_answer": ["$7$"]},
        {"question": "How many?", "answer": "3 + 4\n#### 7"},
        {"question": "How many?", "expected_answer": 7.0},
        conversation,
        {"0": conversation[0], "1": conversation[1], "num_correct": 3},
        [  # as arrow makes them alike
            {"from": "human", "value": "How many?", "ground_truth": None},
            {"from": "assistant", "value": None, "ground_truth": {"value": "7"}},
        ],
        chat | {"reward_model": {"ground_truth": "7", "style": "rule"}},
    ):
        path = root / "rows.json"
        path.write_text(json.dumps([row]))
        found, origin = sources.rows(str(path), sources.POOLS, "")
        assert {k: found[0][k] for k in wanted} == wanted and origin == str(path)
        hub = types.SimpleNamespace(
            disable_progress_bars=lambda: None, load_dataset=lambda *a, row=row, **k: Dataset([row])
        )
        monkeypatch.setitem(sys.modules, "datasets", hub)
        assert sources.rows("owner/some:part:test", {}, "")[0][0]["answer"] == "7"
    assert sources._text(["1", "$2$"]) == "1, 2"


def test_every_known_name_asks_the_hub_for_its_split(monkeypatch):
    asked = []

    def load_dataset(*args, split):
        asked.append((*args, split))
        return Dataset([{"problem": "p", "answer": "a"}])

    hub = types.SimpleNamespace(disable_progress_bars=lambda: None, load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", hub)
    for known in (sources.POOLS, sources.SETS):
        for name, source in known.items():
            if source.hub:
                assert len(sources.rows(name, known, "")[0]) == 1
    assert ("openai/gsm8k", "main", "test") in asked and ("zwhe99/DeepMath-103K", "train") in asked
    assert len(asked) == 10


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"problem": "p"}\n', "lacks a column 'answer': row 0 has problem"),
        (
            "a.jsonl",
            '{"text": "p", "answer": "1"}\n',
            "lacks a column 'problem': row 0 has text, answer; call it one of",
        ),
        ("a.jsonl", '{"problem": "p", "answer": ""}\n', "no question of .* has both a problem and an answer"),
        ("a.jsonl", '{"problem": "p", "answer": "1"}\n{"problem"\n', r"not JSON \(line 2\)"),
        ("a.jsonl", b'{"problem": "\xff\xfe"}\n', "not UTF-8 at byte 13"),
        ("a.jsonl", '{"problem": "\\ud800", "answer": "1"}\n', "row 0 of .*: the problem is not UTF-8"),
        ("a.jsonl", "3\n", "row 0 of .* is int"),
        ("a.jsonl", "", "holds no rows"),
        ("a.json", "{}", "holds no JSON list"),
        ("a.json", "[1", "not JSON"),
        ("a.parquet", "hello", "cannot be read as parquet"),
        ("a.parquet", "", "cannot be read as parquet"),
        ("a.parquet", None, "no question file"),
        ("a.csv", "problem,answer\n", "unknown questions"),
        ("orzz", None, "unknown questions 'orzz'; choose one of: arithmetic, deepmath, deepscaler"),
        ("deepscaler10k", None, "not on the hub, and .* has no deepscaler10k.parquet"),
    ],
)
def test_bad_files_are_one_line(root, name, content, said):
    path = root / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=said) as error:
        load(settings(root, name=str(path) if "." in name else name))
    assert "\n" not in str(error.value)


def test_bad_text_in_parquet_and_labels(root):
    path = str(root / "bad.parquet")
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    pq.write_table(pa.table({"problem": broken, "answer": ["1"]}), path)
    with pytest.raises(UserError, match="UTF-8"):
        load(settings(root, name=path))
    with pytest.raises(UserError, match="config.data.root=nowhere is no directory"):
        load(settings("nowhere"))
    path = write(root / "hard.jsonl", [{"problem": "p", "answer": "1", "hardness": "very"}])
    with pytest.raises(UserError, match="has no column hardnes with numbers.*it has problem, answer, hardness"):
        load(settings(root, name=path, label="hardnes"))
    with pytest.raises(UserError, match="'very' in the column hardness is not a number"):
        load(settings(root, name=path, label="hardness"))
    c = settings(root)
    c.eval.sets = f"gsm8k,{root}/eval/gsm8k.jsonl"
    with pytest.raises(UserError, match="two evaluation sets are called gsm8k"):
        load(c)


def test_static_leaves_out_what_has_no_label(root):
    labels = np.array([3.0, np.nan, 1.0, 2.0, np.nan, 5.0, 4.0, 6.0])
    context = selection.Context(8, labels, None, 3, None, jax.random.key(0))
    c = settings(root)
    c.selection.name, c.train.questions = "static", 2
    static = selection.make(c, context)
    state, drawn = static.init(), []
    for step in (1, 2, 3):
        ids, state = static.propose(state, context.key, 2, step)
        drawn += sorted(labels[ids])
    assert drawn == [1, 2, 3, 4, 5, 6]
    with pytest.raises(UserError, match="which 0 of the pool's 8 questions have"):
        selection.make(c, selection.Context(8, labels * np.nan, None, 3, None, context.key))


@pytest.mark.parametrize(
    "name",
    ["math", "orz", "deepscaler", "deepscaler:qwen2.5-math-7b", "deepscaler:qwen2.5-3b,grpo", "deepmath", "orz:tiny"],
)
def test_the_papers_runs_are_valid_and_fit_eight_gpus(name, tmp_path, monkeypatch, capsys):
    file, _, arg = name.partition(":")
    config = f"configs/{file}.py" + (f":{arg}" if arg else "")
    c = command_line.load(config)
    config_rules.check(c)
    if "tiny" not in name:
        assert (c.train.questions, c.learner.minibatches, c.rollout.group_size, c.train.steps) == (512, 8, 8, 60)
        assert c.rollout.max_tokens == (4096 if "3b" in c.policy.path.lower() else 3072)
    monkeypatch.chdir(tmp_path)
    devices = 1 if "tiny" in name else 8
    assert main.main([f"--config={config}", "--plan", f"--devices={devices}", "--device_memory=80GB"]) == 0
    assert "fits" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_arguments_of_configs():
    c = command_line.load("configs/math.py:rr,tiny,dots_paper")
    assert (c.selection.name, c.policy.random.width, c.learner.loss) == ("uniform", 64, "plain")
    for arg, said in (("tiny,qwen2.5-3b", "only one of"), ("qwen3", "a policy .*qwen2.5-3b.*, a preset .*, a method")):
        with pytest.raises(UserError, match=said):
            command_line.load(f"configs/math.py:{arg}")


def test_no_network_is_one_line(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "DOTS_DATA"} | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    for args, said in (
        (["dots_jax.main", "--config=configs/orz.py"], "Qwen/Qwen2.5-Math-1.5B is no directory here and cannot be had"),
        (["dots_jax.evaluate", "--model=x", "--sets=gsm8k"], "cannot get the questions 'gsm8k'"),
    ):
        command = [sys.executable, "-m", *args, f"--workdir={tmp_path}/run"]
        done = subprocess.run(command, cwd=files.ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert said in done.stderr and "go online, or" in done.stderr


# ---- The real files ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def qwen(data):
    return tok.load(data / "tokenizer" / "qwen2.5")


@pytest.mark.parametrize(
    ("name", "rows", "left", "overlap"),
    [
        ("math", 7498, 5573, {"math500": 1, "olympiadbench": 2}),
        ("orz", 2048, 2040, {"olympiadbench": 2}),
        ("deepscaler10k", 10240, 10075, {"math500": 3}),
        ("deepmath", 4994, 4988, {}),
    ],
)
def test_pools(data, qwen, name, rows, left, overlap):
    c = command_line.load("configs/orz.py")
    c.data.name, c.data.root, c.data.num_questions = name, str(data), 0
    pool, exam = question_sets.load(c, qwen)
    assert (len(pool), len(pool) + len(pool.left_out), len(exam)) == (left, rows, 1319 + 500 + 272 + 675)
    assert all(len(sources.rows(n, sources.SETS, str(data))[0]) == s.size for n, s in sources.SETS.items())
    reasons = [reason for _, reason in pool.left_out]
    assert {s: reasons.count(f"in the evaluation set {s}") for s in overlap} == overlap
    assert sum("evaluation" in r for r in reasons) == sum(overlap.values())
    assert len(set(pool.names)) == len(pool) and np.isfinite(pool.labels).any() and len(set(pool.labels.tolist())) > 3
    if name == "math":
        assert set(pool.levels) == {3, 4, 5}
        assert (pool.labels != pool.levels).sum() == 1  # two copies of a question, of levels 4 and 5: their mean


def test_tokenizer_and_prompts(data, qwen):
    texts = [r["problem"] for n in sources.SETS for r in sources.rows(n, sources.SETS, str(data))[0]]
    texts += [r["problem"] for n in ("orz", "math", "deepmath") for r in sources.rows(n, sources.POOLS, str(data))[0]]
    tokens, lengths = tok.encode(qwen, texts, 10_000)
    assert tok.decode(qwen, tokens, lengths) == [unicodedata.normalize("NFC", text) for text in texts]
    system = command_line.load("configs/orz.py").data.system
    (prompt,) = tok.prompts(qwen, ["1 + 1?"], system)
    assert prompt == (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    )
    ids, _ = tok.encode(qwen, ["1 + 1?"], 1000, system)
    assert (ids == 151644).sum() == 3 and ids.shape[1] == tok.count(qwen, ["1 + 1?"], system)[0]
    assert tok.stop_ids(data / "tokenizer" / "qwen2.5", qwen) == (151643, 151645)
