"""Pools and evaluation sets of real questions: small files written here, and the real ones where DOTS_DATA is."""

import gzip
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
from rows import read, write

from dots_jax import data as question_sets
from dots_jax import experiment, main, selection
from dots_jax.core import command_line, files
from dots_jax.core.errors import UserError
from dots_jax.data import columns, real, sources
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


def settings(root, **fields):
    c = command_line.load("configs/orz.py:tiny")
    c.data.root, c.data.num_questions, c.eval.sets, c.eval.questions = str(root), 0, "gsm8k", 0
    c.data.update({"max_prompt_tokens": 100} | fields)
    return c


def load(c, tokens=lambda texts: [len(t) for t in texts], **kwargs):
    return real.load(c.data, c.eval, tokens, **kwargs)


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


def test_other_columns_come_through(root, monkeypatch):
    rows = [{"question": f"What is {word}?", "answer": str(i), "accept": [word]} for i, word in enumerate(WORDS)]
    exam = write(root / "exam.jsonl", [{"problem": "What is eleven?", "answer": "11", "unit": "cm"}] * 2)
    c = settings(root, name=write(root / "mine.jsonl", rows))
    c.eval.sets = exam
    pool, eval_set = load(c, columns=True)
    asked = pool.items()[2]
    assert asked == ("What is four?", "3", {"question": "What is four?", "accept": ["four"]}, "mine:3")
    with pytest.raises(TypeError, match="assignment"):
        asked.columns["accept"] = []
    assert eval_set.items() == [("What is eleven?", "11", {"unit": "cm"}, "exam:0")]
    assert all(part.columns is None for part in load(c))
    monkeypatch.setattr(tok, "count", lambda tokenizer, texts, *limit: [1] * len(texts))
    for name, kept in {"math": False, "mine.py:score": True}.items():
        c.reward.name = name
        pool, eval_set = question_sets.load(c, None)
        assert (pool.columns is not None) == (eval_set.columns is not None) == kept


def test_questions_are_held_out_where_no_set_is_named(root):
    def held(**fields):
        c = settings(root, **fields)
        c.eval.sets = ""
        pool, heldout = load(c)
        assert not set(pool.names) & set(heldout.names) and set(heldout.families) == {"orz"}
        assert {(name, "held out") for name in heldout.names} <= set(pool.left_out)
        assert "orz:2" not in pool.names + heldout.names  # of gsm8k, which lies there
        return pool, heldout

    pool, heldout = held(num_heldout=2)
    assert (len(pool), len(heldout)) == (8, 2) and "2 held out" in pool.about
    assert len(held()[1]) == 10 // 4  # at most a quarter
    few, same = held(num_heldout=2, num_questions=3)
    assert same.names == heldout.names and set(few.names) < set(pool.names)
    assert {held(num_heldout=2, seed=seed)[1].names for seed in range(8)} > {heldout.names}
    write(root / "train" / "orz.jsonl", [{"problem": "What is one?", "answer": "1"}])
    with pytest.raises(UserError, match="one question to train on and to hold out"):
        held()


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
    assert columns.text(["1", "$2$"]) == "1, 2"


def test_the_hub_keeps_solutions_only_where_no_answer_is(monkeypatch):
    class Columns(Dataset):
        def remove_columns(self, names):
            removed.append(names)
            return self

    for names, wanted in ((["problem", "solution"], []), (["Answer", "Solution"], ["Solution"])):
        removed, found = [], Columns([{"problem": "p", "solution": r"\boxed{7}"}])
        found.column_names = names
        hub = types.SimpleNamespace(disable_progress_bars=lambda: None, load_dataset=lambda *a, f=found, **k: f)
        monkeypatch.setitem(sys.modules, "datasets", hub)
        assert sources.rows("owner/some:test", {}, "")[0][0]["answer"] == "7" and removed == [wanted]


def test_folders_of_shards(root):
    for suffix in ("parquet", "jsonl"):
        folder = root / f"shards.{suffix}"  # as Spark calls a folder
        for shard, word in enumerate(("one", "two", "three")):
            read(folder / f"part-{shard}.{suffix}", {"problem": word, "answer": str(shard)})
        (folder / "_SUCCESS").touch()
        (folder / ".part-0.jsonl").touch()
        for name in (f"{folder}", f"{folder}/", f"shards.{suffix}"):
            c = settings(root, name=name)
            c.eval.sets = name
            pool, exam = load(c)  # of what is trained on
            assert pool.texts == exam.texts == ("one", "two", "three")
            c.eval.sets = "gsm8k"
            pool, _ = load(c)
            assert (pool.texts, pool.names) == (("one", "two", "three"), ("shards:0", "shards:1", "shards:2"))
    (folder / "part-1.jsonl").write_text("")  # an empty shard is no fault
    assert len(sources.rows(str(folder), {}, "")[0]) == 2
    (folder / "part-1.jsonl").write_text('{"problem": "p", "answer": "1"}\n3\n')
    with pytest.raises(UserError, match="row 1 of .*part-1.jsonl is int"):
        load(settings(root, name=str(folder)))
    (folder / "part-1.csv").touch()
    with pytest.raises(UserError, match=r"holds files of several kinds \(.csv, .jsonl\)"):
        load(settings(root, name=str(folder)))
    for split in ("train", "test"):
        read(root / "main" / f"{split}-00000-of-00001.parquet", {"problem": "p", "answer": "1"})
    with pytest.raises(UserError, match=r"holds files of several splits \(test, train\)"):
        load(settings(root, name="main"))
    (root / "none").mkdir()
    with pytest.raises(UserError, match="none holds no .parquet, .jsonl, .json or .csv file"):
        load(settings(root, name="none"))


def test_repeated_questions_of_a_set_are_samples(root):
    answers = enumerate(("1", "2", "$2$"), 1)
    rows = [{"problem": f"Is{' ' * k}{w}?", "answer": a} for k, a in answers for w in ("eleven", "twelve")]
    rows.append({"problem": "Is thirteen?", "answer": "13"})
    c = settings(root)
    c.eval.sets = "gsm8k," + write(root / "aime.jsonl", rows)
    _, exam = load(c)
    assert exam.texts[1:] == ("Is eleven?", "Is twelve?", "Is thirteen?")
    assert exam.answers[1:] == ("2", "2", "13") and exam.repeats == (1, 3, 3, 1)
    assert exam.names == ("gsm8k:0", "aime:0", "aime:1", "aime:6")
    assert exam.rows().tolist() == [0, 1, 1, 1, 2, 2, 2, 3]
    assert "8 rows, whose repeats are further samples" in question_sets.describe(exam, [1])
    c.eval.questions = 2
    assert len(load(c)[1]) == 3
    write(root / "aime.jsonl", rows[:4])
    with pytest.raises(UserError, match="rows 0 and 2 of .* ask the same and answer '1' and '2'"):
        load(c)
    write(root / "aime.jsonl", [rows[0], {"problem": "", "answer": "1"}])
    with pytest.raises(UserError, match="row 1 of .* has no problem or no answer"):
        load(c)
    assert load(settings(root))[1].repeats is None


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
    assert len(asked) == 11


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
        ("a.csv", "", "holds no rows"),
        ("a.csv", "problem,answer\n", "holds no rows"),
        ("a.csv", "problem;answer\n3;4\n", "lacks a column 'problem': row 0 has problem;answer"),
        ("a.csv", "problem,answer\np,1\n1, 2 or 3?,7\n", "line 3 of .* has 3 cells, the first has 2; put a text with"),
        ("a.csv", 'problem,answer\np,1\n"never closed,2\np,3\n', "line 3 of .* is not CSV .*; mend its quotes"),
        ("a.csv", 'problem,answer\n"p"q,1\n', "line 2 of .* is not CSV"),
        ("a.csv", "problem,answer,answer\np,1,2\n", "has two columns of one name"),
        ("a.csv", '"pro\nblem",answer\np,1\n', "lacks a column 'problem': row 0 has pro blem, answer"),
        ("a.csv", "problem,answer\np,1\n".encode("utf-16"), "not UTF-8 at byte 0"),
        ("a.csv.gz", "problem,answer\np,1\n", "not a whole gzip file"),
        ("a.csv.gz", gzip.compress(b"problem,answer\np,1\n", mtime=0)[:-9], "not a whole gzip file"),
        ("a.json", '{"problem": "p", "answer": "1"}\n{"problem"\n', r"not JSON \(line 2\)"),
        ("a.json", '{"problem": {"0": "p"}, "answer": {"0": "1"}}', "holds no JSON list"),
        ("a.json", "", "not JSON"),
        ("a.txt", "problem,answer\n", "unknown questions"),
        ("orzz", None, "unknown questions 'orzz'; choose one of: arithmetic, countdown, deepmath, deepscaler"),
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
        load(settings(root, name=path, difficulty_column="hardnes"))
    with pytest.raises(UserError, match="'very' in the column hardness is not a number"):
        load(settings(root, name=path, difficulty_column="hardness"))
    c = settings(root)
    c.eval.sets = f"gsm8k,{root}/eval/gsm8k.jsonl"
    with pytest.raises(UserError, match="two evaluation sets are called gsm8k"):
        load(c)


def test_static_leaves_out_what_has_no_label(root):
    labels = np.array([3.0, np.nan, 1.0, 2.0, np.nan, 5.0, 4.0, 6.0])
    context = selection.Context(8, (), labels, None, None, 3, None, jax.random.key(0))
    c = settings(root)
    c.selection.name, c.train.batch_size = "static", 2
    static = selection.find(c.selection.name)(c, context)
    state, drawn = static.init(), []
    for step in (1, 2, 3):
        ids, state = static.propose(state, context.key, 2, step)
        drawn += sorted(labels[ids])
    assert drawn == [1, 2, 3, 4, 5, 6]
    with pytest.raises(UserError, match="which 0 of the pool's 8 have"):
        selection.find(c.selection.name)(c, selection.Context(8, (), labels * np.nan, None, None, 3, None, context.key))


@pytest.mark.parametrize(
    "name",
    ["math", "orz", "deepscaler", "deepscaler:qwen2.5-math-7b", "deepscaler:qwen2.5-3b,grpo", "deepmath", "orz:tiny"],
)
def test_the_papers_runs_are_valid_and_fit_eight_gpus(name, tmp_path, monkeypatch, capsys):
    file, _, arg = name.partition(":")
    config = f"configs/{file}.py" + (f":{arg}" if arg else "")
    c = command_line.load(config)
    experiment.check(c)
    if "tiny" not in name:
        assert (c.train.batch_size, c.learner.minibatches, c.rollout.group_size, c.train.steps) == (512, 8, 8, 60)
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
