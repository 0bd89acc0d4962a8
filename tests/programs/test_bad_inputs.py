"""Inputs that no program can use, by kind: one line and exit code 2, and nothing is written."""

import itertools
import json
import os
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dots_jax import evaluate, explore, main, pretrain, report
from dots_jax.core import command_line, config_rules
from dots_jax.core.files import ROOT
from dots_jax.data import arithmetic, real
from dots_jax.difficulty import fit
from dots_jax.policy import tokenizer as tok
from dots_jax.rollout import grading
from dots_jax.run import settings

POLICY = os.path.join(ROOT, "assets", "quickstart_policy")
HUGE, N = 10**9, 60
DEEP, DIGITS = "[" * 100000, "9" * 5000
PROGRAMS = {
    "main": (main.main, "quickstart"),
    "plan": (lambda argv: main.main(["--plan", "--devices=1", *argv]), "quickstart"),
    "evaluate": (evaluate.main, "evaluate"),
    "fit": (fit.main, "difficulty_fit"),
    "pretrain": (pretrain.main, None),
    "report": (report.main, None),
    "explore": (explore.main, None),
}
# fmt: off
RUN = {
    "data.num_questions": 64, "data.num_heldout": 36, "train.steps": 2, "train.batch_size": 4,
    "selection.references": 4, "selection.reuse_references": 0, "replay.capacity": 8,
    "predictor.width": 8, "predictor.window": 64, "predictor.steps": 2,
    "predictor.batch": 16, "rollout.max_tokens": 8, "rollout.group_size": 4, "learner.minibatches": 1,
    "learner.micro_tokens": 64, "eval.samples": 1, "eval.greedy": False,
}
BASE = {
    "main": RUN,
    "plan": RUN,
    "evaluate": {
        "model": POLICY, "samples": 1, "max_tokens": 8, "chunk": 7, "batch": 2, "system": "", "reward": "exact",
        "dtype": "float32",
    },
    "fit": {"references": 8, "width": 8, "batch": 8, "epochs": 2},
    "pretrain": {"steps": 2, "warmup": 0, "batch": 8},
}
# fmt: on


# ---- What a case is made of: functions that write into an empty directory and return a program's arguments -----------


def flags(program, room, **fields):
    """The flags of a good start, but for `fields` (__ for the dot)."""
    given = BASE[program] | {name.replace("__", "."): value for name, value in fields.items()}
    files = {"evaluate": {"sets": questions}, "fit": {"rates": table, "embeddings": npy}}.get(program, {})
    given |= {name: make(room) for name, make in files.items() if name not in given}
    return [f"--workdir={room / 'out'}", *(f"--config.{name}={value}" for name, value in given.items())]


def questions(room, rows=None, name="q.jsonl"):
    """A file of questions; `rows` can be its text."""
    pool, _ = arithmetic.make(8, 0, 3)
    rows = (
        [{"problem": p, "answer": a} for p, a in zip(pool.texts, pool.answers, strict=True)] if rows is None else rows
    )
    (room / name).write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
    return room / name


def table(room, **columns):
    """Measured success rates; `columns` replace its own."""
    rates = np.random.default_rng(0).random(N).tolist()
    rows = {"problem": [f"q{i}" for i in range(N)], "policy": ["p"] * N, "success_rate": rates}
    pq.write_table(pa.table(rows | columns), room / "rates.parquet")
    return room / "rates.parquet"


def npy(room, array=None):
    """A file of embeddings."""
    array = np.random.default_rng(0).standard_normal((N, 4)).astype(np.float32) if array is None else array
    np.save(room / "x.npy", array, allow_pickle=True)
    return room / "x.npy"


def model(room, file, change):
    """A copy of the quickstart's policy with one file changed, as `edit` says."""
    shutil.copytree(POLICY, room / "model")
    edit(room / "model" / file, change)
    return room / "model"


def edit(path, change, line=0):
    """Changes a JSON object in a file, of JSON lines that `line`; Ellipsis removes a field, a text replaces it all."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text() if path.exists() else "{}"]
    if isinstance(change, dict):
        row = json.loads(lines[line])
        for name, value in change.items():
            *groups, last = name.split(".")
            inner = row
            for group in groups:
                inner = inner[group]
            inner[last] = value
        lines[line] = json.dumps({name: value for name, value in row.items() if value is not ...}, default=str)
    else:
        lines[line] = change
    path.write_text("".join(f"{line}\n" for line in lines))


def config_file(room, program, field, value):
    """A config file like the program's own, with a field of another kind."""
    own = PROGRAMS[program][1] or "quickstart_pretrain"
    text = f"from configs import {own}\nfrom ml_collections import ConfigDict\ndef get_config():\n"
    text += (
        f"    c = ConfigDict({own}.get_config().to_dict(), type_safe=False)\n    c.{field} = {value}\n    return c\n"
    )
    (room / "mine.py").write_text(text)
    return [f"--config={room / 'mine.py'}", f"--workdir={room / 'out'}"]


def finished(room):
    """The workdir of a run of 6 steps in rounds of two, made by hand; its embeddings are a file."""
    config, _ = command_line.parse(flags("main", room, train__steps=6), "configs/quickstart.py")
    config.embedding.path = str(npy(room, np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)))
    rows, groups, ids = [], [], itertools.count()
    for step in range(7):
        row = {"step": step, "seconds": 2.0 * step, "ledger/generated_tokens": 100 * step, "train/reward": 0.5}
        row |= {"ledger/seconds_compile": 1.0, "ledger/seconds_evaluation": 0.5, "ledger/seconds_update": 1.0 * step}
        rows.append(row | ({} if step % 2 else {"eval/accuracy": step / 10}))
        group = {"step": step, "rollouts": 4, "ids": [next(ids) for _ in range(4)], "successes": [0, 2, 4, 1]}
        group["predicted"] = [0.5, 0.25, 0.75, 0.5]
        if step % 2:
            group |= {
                "reference_ids": [next(ids) for _ in range(4)],
                "reference_successes": [1, 2, 3, 4],
                "pool": [0] * 19 + [64],
            }
            group |= {"reference_predicted": [0.1, 0.2, 0.3, 0.4]} if step > 1 else {}
        groups.append(group)
    (room / "run").mkdir()
    (room / "run" / "config.json").write_text(json.dumps(config.to_dict()))
    for name, lines in (("metrics.jsonl", rows), ("groups.jsonl", groups[1:])):
        questions(room / "run", lines, name)
    return room / "run"


def asked(room):
    """The workdir of an evaluation that has ended, and the flags to continue it."""
    argv = flags("evaluate", room)
    config, _ = command_line.parse(argv, "configs/evaluate.py", rules=config_rules.EVALUATE)
    rows = [json.loads(line) for line in (room / "q.jsonl").read_text().splitlines()]
    rows = [{name: row[name] for name in ("problem", "answer")} for row in rows]
    (room / "run").mkdir()
    prints = settings.fingerprints(POLICY, {}, questions=real.load_sets(str(room / "q.jsonl"), "")[0])
    settings.write_config(config, str(room / "run"), prints)
    whole = {"sample": 0, "verdict": "wrong", "reward": 0.0, "tokens": 3, "truncated": False, "completion": "12"}
    rows = [{"batch": i // 2, "question": f"q:{i}", "extracted": None} | whole | rows[i] for i in range(8)]
    questions(room / "run", rows, "completions.jsonl")
    return room / "run", [f"--workdir={room / 'run'}", *argv[1:]]


# ---- The cases -----------------------------------------------------------------------------------------------------
# fmt: off
FIELDS = {  # by program; what a run would never end on, or that no array can hold, or is no such number
    "main": [
        *({name: HUGE} for name in (
            "data__num_questions", "data__num_heldout", "rollout__group_size", "rollout__max_tokens",
            "selection__interval",
            "selection__references", "predictor__width", "predictor__window", "predictor__steps", "predictor__batch",
            "train__steps", "train__batch_size", "replay__capacity", "learner__minibatches", "learner__micro_tokens",
            "eval__samples", "predictor__references",
        )),
        *({name: 10**30} for name in (
            "seed", "data__seed", "learner__warmup", "train__eval_every", "rollout__chunk", "learner__logits_chunk",
            "eval__batch", "rollout__slots", "data__max_prompt_tokens", "replay__max_age", "replay__last_step",
        )),
        *({"policy__random__width": 16, f"policy__random__{name}": value} for name, value in (
            ("num_layers", 0), ("num_layers", -1), ("num_layers", HUGE), ("num_heads", 0), ("num_heads", -4),
            ("num_heads", 3), ("num_kv_heads", 0), ("num_kv_heads", 3), ("num_kv_heads", -2), ("mlp_width", 0),
            ("mlp_width", HUGE), ("width", 2), ("width", 12), ("width", HUGE), ("rope_theta", 0.0), ("rope_theta",
            -1.0),
            ("rope_theta", "nan"), ("norm_eps", -1.0), ("norm_eps", "nan"), ("max_positions", 0), ("max_positions",
            10**30),
        )),
        {"policy__random__width": 2**15, "policy__random__num_layers": 999},
        {"train__batch_size": 10**5, "rollout__group_size": 10**5, "data__num_questions": 10**6},
        {"eval__samples": 10**5, "data__num_heldout": 10**5},
        {"selection__name": "uniform", "selection__interval": 10**6},
        {"learner__learning_rate": "1e300"}, {"rollout__temperature": "1e-300"}, {"predictor__half_life": "1e-300"},
        {"seed": "None"}, {"learner__kl_coef": "None"}, {"learner__betas": "None"}, {"eval__greedy": "None"},
        {"mesh__data": 10**30}, {"mesh__data": "None"},
    ],
    "plan": [
        {"train__steps": HUGE}, {"data__num_heldout": HUGE}, {"eval__samples": HUGE},
        {"policy__random__width": 16, "policy__random__num_heads": 0},
    ],
    "evaluate": [
        {"samples": HUGE}, {"batch": 10**30}, {"chunk": 10**30}, {"slots": 10**30}, {"questions": 10**30}, {"seed": -1},
        {"seed": 10**30}, {"temperature": "1e-300"}, {"samples": 10**5, "batch": 10**6},
    ],
    "fit": [
        {"width": HUGE}, {"epochs": HUGE}, {"batch": HUGE}, {"references": HUGE}, {"references": 1}, {"seed": -1},
        {"seed": 10**30}, {"noise": "nan"}, {"learning_rate": "nan"}, {"patience": 10**30}, {"patience": 0},
    ],
    "pretrain": [
        {"num_questions": HUGE}, {"num_heldout": HUGE}, {"batch": HUGE}, {"steps": HUGE}, {"seed": -1},
        {"data_seed": -1},
        {"learning_rate": "nan"}, {"learning_rate": -1}, {"model__width": 10**6}, {"model__width": 0}, {"warmup": 2},
        {"model__num_heads": 5}, {"mistakes": "(1.0,)"}, {"mistakes": "('a',)*6"}, {"level_weights": "(nan,1,1,1,1,1)"},
        {"careless_after": "nan"}, {"model__max_positions": 0},
    ],
}
VALUES = ("None", "3", "'x'", "[1]", "{'a': 1}")  # in a config file
KINDS = {  # fields that can be of none of these kinds, or of those named alone
    "main": {
        "seed": (0, 2, 3, 4), "policy.path": (0, 1, 3, 4), "policy.random.rope_theta": (0, 2),
        "policy.random.tie_embeddings": (0, 1),
        "data.difficulty_column": (0, 1, 3, 4), "reward": (0, 1, 2, 3, 4), "selection.target": (0, 1, 2, 3, 4),
        "learner.betas": (0, 1, 2, 3, 4),
        "predictor.refit": (0, 1, 2, 3, 4), "embedding.path": (0, 3), "train.steps": (0, 2, 3, 4), "train": (0, 1),
        "mesh.data": (0, 2, 3, 4), "mesh": (0, 4), "selection.name": (0, 1, 4), "eval.sets": (0,), "data.root": (0,),
    },
    "evaluate": {
        "model": (0, 1, 3, 4), "sets": (0, 1), "samples": (0, 2, 3), "temperature": (0, 2), "root": (0,), "mesh": (0,
        4), "mesh.data": (0,),
    },
    "fit": {"seed": (0, 2), "rates": (0, 1), "refit": (0, 1), "noise": (0, 2, 3, 4), "batch": (0,), "calibration": (0,
    2)},
    "pretrain": {"seed": (0,), "model": (0, 1, 4), "model.width": (0, 2), "mistakes": (0, 1, 3, 4),
    "careless_after": (0, 2)},
}
MODEL = {  # file: changes of it
    "config.json": [
        {"num_hidden_layers": 0}, {"num_hidden_layers": -1}, {"num_hidden_layers": 3.5}, {"num_hidden_layers": "3"},
        {"num_hidden_layers": None}, {"num_hidden_layers": True}, {"num_hidden_layers": HUGE},
        {"num_attention_heads": 0},
        {"num_attention_heads": 5}, {"num_attention_heads": 96}, {"num_key_value_heads": 0}, {"num_key_value_heads": 3},
        {"num_key_value_heads": None}, {"num_key_value_heads": -2}, {"hidden_size": 0}, {"hidden_size": -96},
        {"hidden_size": "96"},
        {"hidden_size": HUGE}, {"hidden_size": ...}, {"intermediate_size": 0}, {"intermediate_size": [1]},
        {"vocab_size": 0},
        {"vocab_size": 22.0}, {"vocab_size": HUGE}, {"max_position_embeddings": 0}, {"max_position_embeddings": "128"},
        {"max_position_embeddings": 1}, {"rms_norm_eps": "x"}, {"rms_norm_eps": None}, {"rms_norm_eps": -1},
        {"tie_word_embeddings": "no"}, {"rope_parameters": {"rope_theta": 0}}, {"rope_parameters": {"rope_theta": "x"}},
        {"rope_parameters": {"rope_theta": 10**400}}, {"rope_parameters": [1]}, {"rope_scaling": 7},
        {"rope_scaling": {"type": []}},
        {"model_type": ["qwen2"]}, {"eos_token_id": 99}, {"eos_token_id": "x"}, "[1]", '"x"', "null", "", DEEP, DIGITS,
    ],
    "generation_config.json": [
        {"eos_token_id": "0"}, {"eos_token_id": [[0]]}, {"eos_token_id": {"a": 1}}, {"eos_token_id": 22},
        {"eos_token_id": -1},
        {"eos_token_id": 0.5}, {"eos_token_id": True}, {"eos_token_id": [0, 10**12]}, "[1]", '"x"', "null", "", DEEP,
    ],
    "tokenizer_config.json": [
        {"tokenizer_class": 3}, {"added_tokens_decoder": [1]}, {"added_tokens_decoder": {"x": {"content": "a"}}},
        {"eos_token": 3},
        {"eos_token": ["a"]}, {"model_max_length": "x"}, {"chat_template": [1]}, "[1]", "null", DEEP,
    ],
    "tokenizer.json": [
        {"model": None}, {"model": []}, {"model": {"vocab": 3}}, {"model": {"vocab": {"a": "b"}}},
        {"added_tokens": 3}, "[1]", "{}",
    ],
    "chat_template.jinja": ["{% if %}", "{{ raise_exception('no') }}", "{{ a.b.c }}", "{{ 1 / 0 }}"],
}
X = np.random.default_rng(1).standard_normal((N, 4))
EMBEDDINGS = {
    "no columns": X[:, :0], "no rows": X[:0], "one row": X[:1], "1-d": X[0], "3-d": X[None],
    "complex": X.astype(complex),
    "bool": X > 0, "text": X.astype(str), "objects": X.astype(object), "dates": X.astype("datetime64[s]"),
    "NaN": X * np.nan,
    "infinite": X * np.inf, "1e300": X * 1e300, "struct": np.zeros(N, [("a", "f4")]), "one number": np.float32(3),
}
COLUMNS = {
    "problem": ([["a", "b"]] * N, [{"a": 1}] * N, [None] * N, [None, *"abc" * 19, "d", "e"]),
    "policy": ([["a"]] * N, [{"a": 1}] * N, [None] * N),
    "success_rate": (
        [[0.5]] * N, [{"a": 0.5}] * N, [None] * N, [None] + [0.5] * (N - 1), ["0.5"] * N, [True] * N,
        [float("nan")] * N, [1.5] * N,
        [-0.1] * N, [float("inf")] * N,
    ),
}
METRICS = [  # report, the row of step 4
    *({"step": value} for value in ("4", None, [4], 4.5, True, -4, 1e308, 2, ...)),
    *({"eval/accuracy": value} for value in ("0.4", [0.4], {}, 1e308, -1e308, 10**400, True, float("nan"))),
    {"seconds": "8"}, {"seconds": [8]}, {"seconds": float("inf")}, {"ledger/generated_tokens": "x"},
    {"ledger/generated_tokens": 10**400}, {"ledger/generated_tokens": 1e308}, {"train/useful_groups": "x"}, "[4]",
    "hello", DEEP,
    '{"step": ' + DIGITS + "}",
]
CONFIG = [  # report and explore
    "[1]", "null", "", DEEP, "{}", '{"a.b": 1}', {"seed": "1"}, {"seed": [1]}, {"seed": None}, {"train": 3},
    {"train": ...},
    {"train.steps": "6"}, {"train.steps": None}, {"selection": "dots"}, {"selection.name": ["dots"]},
    {"replay.fresh_fraction": "1"},
]
GROUPS = [  # explore, the row of step 3
    *({"ids": value} for value in (["a"] * 4, [1, 2, 3, 99], [1, 2, 3, -1], [1, 2, 3, 10**30], [0.5, 1, 2, 3], 3,
    None, [1], [[1]] * 4, ...)),
    *({"successes": value} for value in ([1], ["1"] * 4, [None] * 4, [5] * 4, [-1, 0, 0, 0], ...)),
    *({"predicted": value} for value in ([0.5], ["x"] * 4, [None] * 4, [float("inf")] * 4, ...)),
    *({"reference_ids": value} for value in ([1, 2, 3, 640], "abcd", [1], ...)),
    {"reference_successes": [1] * 9}, {"reference_successes": ...},
    {"reference_predicted": [0.1]}, {"reference_predicted": ...},
    {"rollouts": 0},
    {"rollouts": "4"}, {"rollouts": None}, {"rollouts": ...}, {"pool": "x"}, {"pool": 3}, {"pool": ...},
    {"step": "3"}, {"step": None},
    "[3]", DEEP,
]
COMPLETIONS = [  # evaluate, the second row
    *({name: ...} for name in ("batch", "question", "sample", "verdict", "reward", "tokens", "truncated")),
    *({"reward": value} for value in ("1", None, [1], 1e308, 7.0)), *({"verdict": value} for value in ("maybe", None,
    ["wrong"])),
    *({"question": value} for value in (3, ["q:1"], "r:1", "q:0")), *({"tokens": value} for value in ("3", None, -3)),
    *({"batch": value} for value in ("0", -1, [0], None, 0.5, 4, 10**30)), {"truncated": "no"}, {"truncated": None},
    {"problem": ...}, {"problem": 3}, {"extracted": 3}, {"sample": "0"}, "[1]", DEEP,
]
QUESTIONS = [
    [3], [None], [[1, 2, 3]], [{"problem": {"a": 1}, "answer": "1"}], [{"problem": None, "answer": None}], "", "[1",
    [{"problem": "hello", "answer": "1"}], [{"problem": "1" * 10**7, "answer": "1"}],
    *(f'{{"problem": {problem}, "answer": {answer}}}\n' for problem, answer in (
        ("1", DEEP + "]" * 100000), ("1", "[" * 900 + "]" * 900), ("1", DIGITS), ('"\\ud800"', "1"),
    )),
]
POOLS = [  # rows, changes of the config
    ([{"problem": "1" * 10**7, "answer": "1"}], {}),
    ([{"problem": f"s{i}=", "answer": "1", "d": 10**400} for i in range(9)], {"data__difficulty_column": "d"}),
    ([{"problem": f"s{i}=", "answer": "1", "d": "x"} for i in range(9)], {"data__difficulty_column": "d"}),
    ([{"problem": f"s{i}=", "answer": "1", "level": "9" * 30} for i in range(9)], {"data__difficulty_column": "level"}),
]
ARGUMENTS = [
    ("report", "--foo=1"), ("report", "/nowhere"), ("report", ""), ("report", "x" * 5000), ("report", POLICY),
    ("explore", "/nowhere"),
    ("explore", ""), ("explore", os.path.join(POLICY, "config.json")), ("explore", "x" * 5000), ("main",
    "--workdir=" + "x" * 5000),
    ("main", "--config.policy.path=" + "x" * 5000), ("plan", "--device_memory=1e400GB"), ("plan",
    f"--device_memory={DIGITS}GB"),
    ("plan", "--devices=" + "9" * 30), ("main", "--coordinator=h:1 --process_id=0 --num_processes=" + "9" * 30),
]
# fmt: on


def cases():
    """(program, kind, what is wrong, function of an empty directory that returns the arguments)."""
    for program, changes in FIELDS.items():
        for one in changes:
            yield program, "field", one, lambda room, p=program, one=one: flags(p, room, **one)
    for program, fields in KINDS.items():
        for field, values in fields.items():
            for value in (VALUES[i] for i in values):
                yield program, "kind", {field: value}, lambda room, c=(program, field, value): config_file(room, *c)
    for file, change in ((file, change) for file, changes in MODEL.items() for change in changes):
        system = {"system": "x"} if file.endswith("jinja") else {}
        yield (
            "evaluate",
            file,
            change,
            lambda room, c=(file, change), s=system: flags("evaluate", room, model=model(room, *c), **s),
        )
    for change in MODEL["config.json"][:20]:
        yield (
            "plan",
            "config.json",
            change,
            lambda room, c=change: flags("plan", room, policy__path=model(room, "config.json", c)),
        )
    for name, array in EMBEDDINGS.items():
        yield "fit", "embeddings", name, lambda room, x=array: flags("fit", room, embeddings=npy(room, x))
    for column, values in ((column, values) for column, several in COLUMNS.items() for values in several):
        yield "fit", column, values[:2], lambda room, c={column: values}: flags("fit", room, rates=table(room, **c))
    for program, file, line, changes in (
        ("report", "metrics.jsonl", 4, METRICS),
        ("report", "config.json", 0, CONFIG),
        ("explore", "config.json", 0, CONFIG),
        ("explore", "groups.jsonl", 2, GROUPS),
    ):
        out = ["--out=out"] * (program == "report")
        for change in changes:
            yield program, file, change, lambda room, c=(file, change, line), out=out: again(finished(room), out, *c)
    for change in COMPLETIONS:
        yield (
            "evaluate",
            "completions.jsonl",
            change,
            lambda room, c=change: again(*asked(room), "completions.jsonl", c, 1),
        )
    for rows in QUESTIONS:
        yield "evaluate", "questions", rows, lambda room, r=rows: flags("evaluate", room, sets=questions(room, r))
    for rows, change in POOLS:
        yield (
            "main",
            "questions",
            rows,
            lambda room, r=rows, c=change: flags(
                "main", room, data__name=questions(room, r), eval__sets=questions(room, name="exam.jsonl"), **c
            ),
        )
    for program, argument in ARGUMENTS:
        yield program, "arguments", argument, lambda room, argument=argument: argument.split(" ")


def again(workdir, argv, file, change, line):
    """The arguments of a program that reads the workdir once more after a change."""
    edit(workdir / file, change, line)
    return argv if any(str(workdir) in arg for arg in argv) else [str(workdir), *argv]


def name(case):
    program, kind, wrong, _ = case
    text = wrong if isinstance(wrong, str) else repr(wrong if sys.getsizeof(wrong) < 10**4 else "")[:60]
    return f"{program}-{kind}-{text[:60]}".encode("ascii", "replace").decode()


def contents(room):
    """Of the workdirs, file by file."""
    return {path: path.read_bytes() for part in ("out", "run") for path in (room / part).rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", list(cases()), ids=name)
def test_one_line_and_code_2(case, tmp_path, monkeypatch, capsys, backstop):
    program, _, _, make = case
    monkeypatch.chdir(tmp_path)
    argv = make(tmp_path)
    before = contents(tmp_path)
    with backstop(60):  # one that hangs
        assert PROGRAMS[program][0](argv) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("program", "file"), [("report", "metrics.jsonl"), ("explore", "groups.jsonl")])
def test_what_is_read_again_is_good(program, file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    workdir = finished(tmp_path)
    with (workdir / file).open("a") as lines:
        lines.write('{"step": 7, "torn')
    assert PROGRAMS[program][0]([str(workdir)]) == 0, capsys.readouterr().err


def test_a_run_of_one_round_has_nothing_to_compare(tmp_path, capsys):
    workdir = finished(tmp_path)
    for file, count in (("metrics.jsonl", 3), ("groups.jsonl", 2)):
        path = workdir / file
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:count]))
    assert explore.main([str(workdir)]) == 2
    assert "fewer than two whole selection rounds" in capsys.readouterr().err


def test_an_evaluation_that_has_ended_is_read_again(tmp_path, capsys):
    workdir, argv = asked(tmp_path)
    assert evaluate.main(argv) == 0
    assert json.loads((workdir / "results.json").read_text())["q"]["wrong"] == 8


def test_completions_are_no_longer_than_the_positions(tmp_path, monkeypatch):
    class Sampled(Exception):
        pass

    def sample(*args, **options):
        raise Sampled(args[6])

    monkeypatch.setattr(grading, "sample", sample)
    with pytest.raises(Sampled) as found:
        evaluate.main(flags("evaluate", tmp_path, max_tokens=HUGE))
    assert 100 < found.value.args[0] < 128


def test_long_texts_are_counted_without_being_tokenized():
    tokenizer = tok.load(POLICY)
    assert tok.count(tokenizer, ["1" * 10**8, "12=", "1" * 200], most=16) == [17, 3, 200]
