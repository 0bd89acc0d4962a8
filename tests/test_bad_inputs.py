"""Inputs that no run can use, over all programs: one line, exit code 2, nothing left behind."""

import itertools
import json
import os
import shutil
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dots_jax import evaluate, explore, main, pretrain, report
from dots_jax.data import arithmetic
from dots_jax.difficulty import fit
from dots_jax.main import ROOT

POLICY = os.path.join(ROOT, "assets", "quickstart_policy")
HUGE = 10**9
PROGRAMS = {
    "main": main.main,
    "plan": lambda argv: main.main(["--plan", "--devices=1", *argv]),
    "evaluate": evaluate.main,
    "fit": fit.main,
    "pretrain": lambda argv: main.run(pretrain.pretrain, "configs/quickstart_pretrain.py", "", argv),
    "report": report.main,
    "explore": explore.main,
}
TINY = {  # a run of which the first step would be over in seconds
    "data.num_questions": 64,
    "data.num_heldout": 36,
    "train.steps": 2,
    "train.questions": 4,
    "selection.references": 4,
    "selection.reuse": 0,
    "replay.capacity": 8,
    "predictor.width": 8,
    "predictor.window": 64,
    "predictor.steps": 2,
    "predictor.batch": 16,
    "rollout.max_tokens": 8,
    "rollout.group_size": 4,
    "learner.minibatches": 1,
    "learner.micro_rows": 8,
    "learner.length_buckets": 1,
    "eval.samples": 1,
    "eval.greedy": False,
}
ASK = {"samples": 1, "max_tokens": 8, "chunk": 7, "batch": 2, "system": "", "reward": "exact", "dtype": "float32"}
FIT = {"references": 8, "width": 8, "batch": 8, "epochs": 2}
QUESTIONS = [
    {"problem": p, "answer": a}
    for p, a in zip(*(arithmetic.make(8, 0, 3)[0].__dict__[n] for n in ("texts", "answers")))
]


# ---- What a case is made of: a function of a fresh directory that writes files there and returns arguments ----------
def flags(fields: dict) -> list[str]:
    return [f"--config.{name}={value}" for name, value in fields.items()]


def fields(program, **given):
    """Flags alone, with _ for the dot where a group of fields is meant (as `field__name`)."""
    base = {"main": TINY, "plan": TINY, "evaluate": ASK, "fit": FIT, "pretrain": {"steps": 2, "warmup": 0, "batch": 8}}[
        program
    ]

    def make(room):
        values = base | {name.replace("__", "."): value for name, value in given.items()}
        argv = [f"--workdir={room / 'out'}", *flags(values)]
        if program == "evaluate":
            argv += [f"--model={POLICY}", f"--sets={questions(room, QUESTIONS)}"]
        if program == "fit":
            argv += table(room)
        return argv

    return make


def questions(room, rows, name="q.jsonl"):
    (room / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return room / name


def model(room, file="config.json", text=None, drop=(), **changes):
    """A copy of the quickstart's policy with one file changed."""
    shutil.copytree(POLICY, room / "model")
    path = room / "model" / file
    if text is None:
        old = json.loads(path.read_text()) if path.exists() else {}
        text = json.dumps({k: v for k, v in (old | changes).items() if k not in drop})
    path.write_text(text)
    return room / "model"


def with_model(program, **how):
    def make(room):
        path = model(room, **how)
        if program in ("main", "plan"):
            return [f"--workdir={room / 'out'}", *flags(TINY | {"policy.path": path})]
        return [f"--workdir={room / 'out'}", *flags(ASK), f"--model={path}", f"--sets={questions(room, QUESTIONS)}"]

    return make


def with_questions(program, text, name="q.jsonl", **changed):
    def make(room):
        path = room / name
        if isinstance(text, str):
            path.write_text(text)
        else:
            questions(room, text, name)
        if program == "evaluate":
            return [f"--workdir={room / 'out'}", *flags(ASK | changed), f"--model={POLICY}", f"--sets={path}"]
        exam = questions(room, QUESTIONS[:2], "exam.jsonl")
        pool = {"data.name": path, "eval.sets": exam, "data.num_questions": 0, "selection.name": "uniform"}
        return [f"--workdir={room / 'out'}", *flags(TINY | pool | changed)]

    return make


def with_npy(program, array):
    def make(room):
        np.save(room / "x.npy", array, allow_pickle=True)
        if program == "fit":
            return [f"--workdir={room / 'out'}", *flags(FIT), *table(room)[:1], f"--embeddings={room / 'x.npy'}"]
        return [f"--workdir={room / 'out'}", *flags(TINY | {"embedding.path": room / "x.npy"})]

    return make


N = 60


def table(room, **columns):
    rng = np.random.default_rng(0)
    rows = {"problem": [f"q{i}" for i in range(N)], "policy": ["p"] * N, "success_rate": rng.random(N).tolist()}
    pq.write_table(pa.table(rows | columns), room / "rates.parquet")
    if not (room / "x.npy").exists():
        np.save(room / "x.npy", rng.standard_normal((N, 4)).astype(np.float32))
    return [f"--rates={room / 'rates.parquet'}", f"--embeddings={room / 'x.npy'}"]


def with_table(embeddings=N, **columns):
    def make(room):
        np.save(room / "x.npy", np.random.default_rng(0).standard_normal((embeddings, 4)).astype(np.float32))
        return [f"--workdir={room / 'out'}", *flags(FIT), *table(room, **columns)]

    return make


def with_config(program, *lines):
    """A config file that changes its program's own."""
    own = {"main": "quickstart", "plan": "quickstart", "evaluate": "evaluate", "fit": "difficulty_fit",
           "pretrain": "quickstart_pretrain"}[program]  # fmt: skip

    def make(room):
        body = "".join(f"    {line}\n" for line in lines)
        head = f"from ml_collections import ConfigDict\nfrom configs import {own}\ndef get_config():\n"
        text = f"{head}    c = {own}.get_config()\n    c.unlock()\n    c = ConfigDict(c.to_dict(), type_safe=False)\n{body}    return c\n"
        (room / "mine.py").write_text(text)
        return [f"--config={room / 'mine.py'}", *fields(program)(room)]

    return make


# ---- Workdirs of runs and evaluations, made by hand -----------------------------------------------------------------
def finished(room):
    """A run of 6 steps, rounds of two; its embeddings are a file."""
    config = main.load("configs/quickstart.py")
    for name, value in TINY.items():
        *path, last = name.split(".")
        part = config
        for step in path:
            part = part[step]
        part[last] = value
    config.train.steps, config.embedding.path = 6, str(room / "x.npy")
    np.save(room / "x.npy", np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32))
    workdir = room / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    rows, groups, ids = [], [], itertools.count()
    for step in range(7):
        row = {"step": step, "seconds": 2.0 * step, "ledger/generated_tokens": 100 * step, "train/reward": 0.5}
        row |= {"ledger/seconds_compile": 1.0, "ledger/seconds_evaluation": 0.5, "ledger/seconds_update": 1.0 * step}
        rows.append(row | ({"eval/accuracy": step / 10} if step % 2 == 0 else {}))
        if step:
            new = [next(ids) for _ in range(4)]
            made = {"step": step, "rollouts": 4, "ids": new, "successes": [0, 2, 4, 1]}
            made["predicted"] = [0.5, 0.25, 0.75, 0.5]
            if step % 2:
                asked = [next(ids) for _ in range(4)]
                made |= {"asked": asked, "asked_successes": [1, 2, 3, 4], "pool": [0] * 19 + [64]}
                made |= {"asked_predicted": [0.1, 0.2, 0.3, 0.4]} if step > 1 else {}
            groups.append(made)
    for name, lines in (("metrics.jsonl", rows), ("groups.jsonl", groups)):
        (workdir / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return workdir


def asked(room):
    """An evaluation of which the first two of four batches are there."""
    workdir, argv = room / "run", fields("evaluate")(room)
    config, _ = main.parse([a if a.startswith("--config") else a for a in evaluate_flags(argv)], "configs/evaluate.py")
    workdir.mkdir()
    import hashlib
    import zlib

    from dots_jax.policy import huggingface

    config.unlock()
    config.model_files = hashlib.sha256(b"".join(huggingface.fingerprint(POLICY))).hexdigest()[:20]
    texts, answers = (tuple(row[name] for row in QUESTIONS) for name in ("problem", "answer"))
    config.question_texts = zlib.crc32("\0".join(texts + answers).encode())
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    rows = [
        {"batch": i // 2, "question": f"q:{i}", "sample": 0, "verdict": "wrong", "reward": 0.0, "tokens": 3, "ended": True,
         "answer": QUESTIONS[i]["answer"], "completion": "12"}
        for i in range(8)
    ]  # fmt: skip
    (workdir / "completions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return workdir, [f"--workdir={workdir}", *argv[1:]]


def evaluate_flags(argv):
    return [arg.replace("--model", "--config.model").replace("--sets", "--config.sets") for arg in argv]


def edit(path, line=None, text=None, drop=(), **changes):
    """Changes one object of a file of JSON lines, or the one object of a JSON file; `text` replaces it whole."""
    lines = path.read_text().splitlines() if path.name.endswith("l") else [path.read_text()]
    at = 0 if line is None else line
    if text is None:
        row = json.loads(lines[at])
        for name, value in changes.items():
            part, *path_ = name.split("__")
            inner = row
            while path_:
                inner, part = inner[part], path_.pop(0)
            inner[part] = value
        text = json.dumps({k: v for k, v in row.items() if k not in drop})
    lines[at] = text
    path.write_text("".join(f"{one}\n" for one in lines))


def read_again(program, file, line=None, **how):
    def make(room):
        if program == "evaluate":
            workdir, argv = asked(room)
        else:
            workdir = finished(room)
            argv = [str(workdir), *([f"--out={room / 'out'}"] if program == "report" else [])]
        names = {name.replace("SLASH", "/"): value for name, value in how.items()}
        edit(workdir / file, line, **names)
        return argv

    return make


def only(program, file, keep):
    """The first `keep` lines of a file."""

    def make(room):
        workdir = finished(room)
        path = workdir / file
        path.write_text("".join(path.read_text().splitlines(True)[:keep]))
        return [str(workdir), *([f"--out={room / 'out'}"] if program == "report" else [])]

    return make


# ---- The list -----------------------------------------------------------------------------------------------------
def _cases():
    """(name, program, function of a directory)."""

    def several(kind, program, make, *settings):
        for setting in settings:
            said = ",".join(f"{k}={str(v)[:24]}" for k, v in setting.items())
            yield f"{kind}:{program}:{said}", program, make(program, **setting)

    # 1. Counts that nothing can hold.
    counts = (
        "data.num_questions", "data.num_heldout", "rollout.group_size", "rollout.max_tokens", "selection.every",
        "selection.references", "predictor.width", "predictor.window", "predictor.steps", "predictor.batch",
        "train.steps", "train.questions", "replay.capacity", "learner.minibatches", "learner.micro_rows",
        "learner.length_buckets", "eval.samples", "predictor.references",
    )  # fmt: skip
    huge = [{c.replace(".", "__"): HUGE} for c in counts]
    huge += [
        {"data__num_questions": HUGE, "selection__references": 4},
        {"selection__name": "uniform", "selection__every": HUGE},
    ]
    huge += [{"replay__fresh": 1.0, "train__questions": HUGE, "data__num_questions": HUGE}]
    huge += [{"selection__name": "uniform", "replay__fresh": 1.0, "data__num_heldout": 10**12}]
    huge += [{"data__seed": 10**30}, {"seed": 10**30}, {"learner__warmup": 10**30}, {"train__eval_every": 10**30}]
    huge += [
        {"rollout__chunk": 10**30},
        {"learner__logits_chunk": 10**30},
        {"eval__batch": 10**30},
        {"rollout__slots": 10**30},
    ]
    huge += [
        {"learner__learning_rate": "1e300"},
        {"rollout__temperature": "1e-300"},
        {"predictor__half_life": "1e-300"},
    ]
    huge += [
        {"data__max_prompt_tokens": 10**30},
        {"replay__max_age": 10**30},
        {"replay__until": 10**30},
        {"selection__temperature": "1e-320"},
    ]
    yield from several("count", "main", fields, *huge)
    yield from several(
        "count", "plan", fields, {"train__steps": HUGE}, {"data__num_heldout": HUGE}, {"eval__samples": HUGE}
    )
    yield from several(
        "count", "evaluate", fields,
        {"max_tokens": HUGE}, {"samples": HUGE}, {"batch": 10**30}, {"chunk": 10**30}, {"slots": 10**30}, {"questions": 10**30},
        {"seed": 10**30}, {"temperature": "1e-300"}, {"seed": -1}, {"max_tokens": 100000},
    )  # fmt: skip
    yield from several(
        "count", "fit", fields, {"width": HUGE}, {"epochs": HUGE}, {"batch": HUGE}, {"references": HUGE}, {"seed": -1},
        {"seed": 10**30}, {"noise": "nan"}, {"learning_rate": "nan"}, {"patience": 10**30},
    )  # fmt: skip
    yield from several(
        "count", "pretrain", fields, {"num_questions": HUGE}, {"num_heldout": HUGE}, {"batch": HUGE}, {"steps": HUGE, "num_heldout": 10},
        {"seed": -1}, {"seed": 10**30}, {"data_seed": -1}, {"learning_rate": "nan"}, {"learning_rate": -1}, {"model__width": 10**6},
        {"level_weights": "(nan,1,1,1,1,1)"}, {"mistakes": "(1.0,)"}, {"mistakes": "('a',)*6"}, {"careless_after": "nan"},
        {"model__max_positions": 0},
    )  # fmt: skip
    big = [{"problem": "12+3=" * (2 * 10**6), "answer": "1"}]
    yield (
        "count:main:question of 10 MB",
        "main",
        with_questions("main", QUESTIONS + big, **{"data.max_prompt_tokens": 10**5}),
    )
    yield "count:main:only a question of 10 MB", "main", with_questions("main", big)
    yield "count:main:one word of 10 MB", "main", with_questions("main", [{"problem": "1" * 10**7, "answer": "1"}])
    yield "count:evaluate:question of 10 MB", "evaluate", with_questions("evaluate", QUESTIONS + big)
    yield (
        "count:evaluate:one word of 10 MB",
        "evaluate",
        with_questions("evaluate", [{"problem": "1" * 10**7, "answer": "1"}]),
    )
    yield from several(
        "count", "main", with_model,
        *({name: HUGE} for name in ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")),
    )  # fmt: skip
    yield from several(
        "count", "plan", with_model, {"num_hidden_layers": HUGE}, {"vocab_size": 10**30}, {"max_position_embeddings": 0}
    )

    # 2. Shapes.
    random = [{name: value} for name, value in (
        ("num_layers", 0), ("num_layers", -1), ("num_layers", HUGE), ("num_heads", 0), ("num_heads", -4), ("num_heads", 3),
        ("num_kv_heads", 0), ("num_kv_heads", 3), ("num_kv_heads", -2), ("mlp_width", 0), ("mlp_width", -8), ("mlp_width", HUGE),
        ("width", 2), ("width", 12), ("width", HUGE), ("width", 10**6), ("rope_theta", 0.0), ("rope_theta", -1.0),
        ("rope_theta", "nan"), ("rope_theta", "inf"), ("norm_eps", -1.0), ("norm_eps", "nan"), ("norm_eps", 0.0), ("max_positions", 0),
        ("max_positions", -5), ("max_positions", 10**30),
    )]  # fmt: skip
    random = [{"policy__random__width": 16} | {f"policy__random__{k}": v for k, v in one.items()} for one in random]
    yield from several("shape", "main", fields, *random)
    yield from several("shape", "plan", fields, *random[:2], random[3], random[5], random[14], random[16])
    shapes = [{name: value} for name, value in (
        ("num_hidden_layers", 0), ("num_hidden_layers", -1), ("num_hidden_layers", 3.5), ("num_hidden_layers", "3"),
        ("num_hidden_layers", None), ("num_hidden_layers", [3]), ("num_hidden_layers", True), ("num_attention_heads", 0),
        ("num_attention_heads", 5), ("num_attention_heads", 96), ("num_key_value_heads", 0), ("num_key_value_heads", 3),
        ("num_key_value_heads", None), ("num_key_value_heads", -2), ("hidden_size", 0), ("hidden_size", -96), ("hidden_size", "96"),
        ("intermediate_size", 0), ("intermediate_size", None), ("vocab_size", 0), ("vocab_size", -22), ("vocab_size", 22.0),
        ("max_position_embeddings", 0), ("max_position_embeddings", "128"), ("max_position_embeddings", 1.5),
        ("rms_norm_eps", "x"), ("rms_norm_eps", None), ("rms_norm_eps", -1), ("rms_norm_eps", [1]), ("tie_word_embeddings", "no"),
        ("rope_parameters", {"rope_theta": 0}), ("rope_parameters", {"rope_theta": -5}), ("rope_parameters", {"rope_theta": "x"}),
        ("rope_parameters", [1]), ("rope_parameters", "x"), ("rope_parameters", {"rope_theta": 10**400}),
        ("rope_parameters", {"rope_theta": None}), ("rope_scaling", 7), ("rope_scaling", [1]), ("rope_scaling", {"type": []}),
        ("model_type", None), ("model_type", ["qwen2"]),
    )]  # fmt: skip
    yield from several("shape", "main", with_model, *shapes)
    yield from several("shape", "plan", with_model, *shapes[:6], shapes[7], shapes[14], shapes[22])
    yield from several(
        "shape", "evaluate", with_model, {"max_position_embeddings": 1}, {"rope_parameters": {"rope_theta": 0}}
    )
    yield "shape:main:drop hidden_size", "main", with_model("main", drop=("hidden_size",))
    for name, text in (
        ("list", "[1]"),
        ("text", '"x"'),
        ("null", "null"),
        ("empty", ""),
        ("deep", "[" * 100000),
        ("big int", "9" * 5000),
        ("bytes", "\ud800".encode("utf8", "surrogatepass").decode("latin1")),
    ):
        yield f"shape:main:config.json {name}", "main", with_model("main", text=text)
    rng = np.random.default_rng(0)
    ok = rng.standard_normal((64, 4)).astype(np.float32)
    bad = {
        "no columns": ok[:, :0], "no rows": ok[:0], "one row": ok[:1], "1-d": ok[0], "3-d": ok[None], "complex": ok.astype(complex),
        "bool": ok > 0, "text": ok.astype(str), "object": ok.astype(object), "dates": ok.astype("datetime64[s]"), "nan": ok * np.nan,
        "inf": ok * np.inf, "1e300": ok.astype(float) * 1e300, "longdouble": ok.astype(np.longdouble) * np.longdouble("1e4000"),
        "struct": np.zeros(64, [("a", "f4")]), "scalar": np.float32(3),
    }  # fmt: skip
    for name, array in bad.items():
        yield f"embeddings:main:{name}", "main", with_npy("main", array)
        yield (
            f"embeddings:fit:{name}",
            "fit",
            with_npy("fit", np.resize(array, (N, *array.shape[1:])) if array.ndim > 1 and len(array) == 64 else array),
        )

    # 3. JSON of another kind, config fields of another kind.
    for name, text in (
        ("list", "[1]"), ("text", '"x"'), ("null", "null"), ("eos text", '{"eos_token_id": "0"}'), ("eos nested", '{"eos_token_id": [[0]]}'),
        ("eos dict", '{"eos_token_id": {"a": 1}}'), ("eos out", '{"eos_token_id": 22}'), ("eos negative", '{"eos_token_id": -1}'),
        ("eos float", '{"eos_token_id": 0.5}'), ("eos true", '{"eos_token_id": true}'), ("eos big", '{"eos_token_id": [0, 1000000000000]}'),
        ("number", "3"), ("empty", ""), ("deep", "[" * 100000),
    ):  # fmt: skip
        for program in ("main", "evaluate"):
            yield (
                f"json:{program}:generation_config {name}",
                program,
                with_model(program, file="generation_config.json", text=text),
            )
    yield from several(
        "json", "main", with_model, {"eos_token_id": "x"}, {"eos_token_id": [None]}, {"eos_token_id": 99}
    )
    for name, text in (
        ("list", "[1]"), ("text", '"x"'), ("null", "null"), ("class", '{"tokenizer_class": 3}'), ("added list", '{"added_tokens_decoder": [1]}'),
        ("added key", '{"added_tokens_decoder": {"x": {"content": "a"}}}'), ("eos", '{"eos_token": 3}'), ("eos list", '{"eos_token": ["a"]}'),
        ("no eos", '{"tokenizer_class": "Qwen2Tokenizer", "eos_token": null}'), ("max", '{"model_max_length": "x"}'), ("deep", "[" * 100000),
        ("template", '{"chat_template": 3}'), ("template list", '{"chat_template": [1]}'), ("added negative", '{"added_tokens_decoder": {"-7": {"content": "a"}}}'),
    ):  # fmt: skip
        yield f"json:main:tokenizer_config {name}", "main", with_model("main", file="tokenizer_config.json", text=text)
    for name, text in (("list", "[1]"), ("model null", '{"model": null}'), ("model list", '{"model": []}'), ("vocab", '{"model": {"vocab": 3}}'),
                       ("vocab text ids", '{"model": {"vocab": {"a": "b"}}}'), ("added", '{"model": {"vocab": {"a": 0}}, "added_tokens": 3}'), ("empty", "{}")):  # fmt: skip
        yield f"json:main:tokenizer.json {name}", "main", with_model("main", file="tokenizer.json", text=text)
    for name, template in (
        ("syntax", "{% if %}"),
        ("raises", "{{ raise_exception('no') }}"),
        ("undefined", "{{ a.b.c }}"),
        ("loops", "{{ 1 / 0 }}"),
    ):
        yield f"json:main:chat template {name}", "main", (lambda template: lambda room: [
            f"--workdir={room / 'out'}", *flags(TINY | {"policy.path": model(room, "chat_template.jinja", template), "data.system": "x"})])(template)  # fmt: skip
    names = (
        "seed", "policy.path", "policy.dtype", "policy.random.width", "policy.random.rope_theta", "policy.random.tie_embeddings", "data.name",
        "data.root", "data.label", "data.system", "reward", "selection.name", "selection.target", "embedding.path", "embedding.standardise",
        "embedding.cache", "predictor.path", "predictor.refit", "replay.once", "replay.positive_only", "learner.advantage_std", "learner.betas",
        "learner.remat", "learner.kl", "train.steps", "train.empty_buffer", "eval.sets", "eval.greedy", "mesh.data", "name",
    )  # fmt: skip
    for name in names:
        for value in ("None", "3", "'x'", "[1]", "{'a': 1}"):
            takes = {"seed": "3", "policy.random.rope_theta": "3", "train.steps": "3", "learner.kl": "3"}.get(name)
            texts = ("path", "name", "root", "system", "cache", "sets", "label", "reward", "dtype")
            if value == takes or (value == "'x'" and name.rpartition(".")[2] in texts):
                continue
            if (
                value != "None"
                and name.count(".")
                and name
                not in ("data.label", "learner.betas", "embedding.path", "predictor.refit", "mesh.data", "train.steps")
            ):
                continue  # a kind of each is enough
            yield f"kind:main:{name}={value}", "main", with_config("main", f"c.{name} = {value}")
    for name in (
        "seed",
        "learner.kl",
        "data.label",
        "learner.betas",
        "eval.greedy",
        "predictor.path",
        "mesh.data",
        "selection.target",
    ):
        yield f"kind:main:--config.{name}=None", "main", fields("main", **{name.replace(".", "__"): "None"})
    for program, names in (
        ("evaluate", ("model", "sets", "questions", "samples", "temperature", "system", "reward", "root", "dtype", "seed", "mesh.data", "mesh")),
        ("fit", ("seed", "rates", "embeddings", "references", "calibration", "refit", "batch", "noise", "teacher", "dropout", "average", "patience")),
        ("pretrain", ("seed", "model", "model.width", "model.rope_theta", "model.tie_embeddings", "num_questions", "level_weights", "mistakes", "careless_after", "steps", "learning_rate", "warmup", "data_seed")),
    ):  # fmt: skip
        for name, value in itertools.product(names, ("None", "{'a': 1}", "[None]")):
            yield f"kind:{program}:{name}={value}", program, with_config(program, f"c.{name} = {value}")
        yield f"kind:{program}:config of another program", program, (lambda p: lambda room: [
            "--config=configs/difficulty_fit.py" if p != "fit" else "--config=configs/evaluate.py", f"--workdir={room / 'out'}"])(program)  # fmt: skip
    columns = {
        "problem": {
            "lists": [["a", "b"]] * N, "structs": [{"a": i} for i in range(N)], "nulls": [None] * N, "one null": [None, *(f"q{i}" for i in range(1, N))],
            "bytes": [b"\xff%d" % i for i in range(N)],
        },
        "policy": {"lists": [["a"]] * N, "structs": [{"a": 1}] * N, "nulls": [None] * N},
        "success_rate": {
            "lists": [[0.5]] * N, "structs": [{"a": 0.5}] * N, "nulls": [None] * N, "one null": [None] + [0.5] * (N - 1), "text": ["0.5"] * N,
            "bools": [True] * N, "NaN": [float("nan")] * N, "above": [1.5] * N, "below": [-0.1] * N, "inf": [float("inf")] * N, "equal": [0.5] * N,
        },
    }  # fmt: skip
    for column, kinds in columns.items():
        for name, values in kinds.items():
            yield f"table:fit:{column} {name}", "fit", with_table(**{column: values}, embeddings=N)
            if name in ("lists", "nulls"):
                yield f"table:fit:{column} {name}, one embedding", "fit", with_table(**{column: values}, embeddings=1)

    # 4. The project's own files, read again.
    rows = "metrics.jsonl"
    for name, how in {
        "step text": {"step": "4"}, "step null": {"step": None}, "step list": {"step": [4]}, "step float": {"step": 4.5}, "step true": {"step": True},
        "step negative": {"step": -4}, "step 1e308": {"step": 1e308}, "step again": {"step": 2}, "accuracy text": {"evalSLASHaccuracy": "0.4"},
        "accuracy list": {"evalSLASHaccuracy": [0.4]}, "accuracy dict": {"evalSLASHaccuracy": {}}, "accuracy 1e308": {"evalSLASHaccuracy": 1e308},
        "accuracy -1e308": {"evalSLASHaccuracy": -1e308}, "accuracy int": {"evalSLASHaccuracy": 10**400}, "accuracy true": {"evalSLASHaccuracy": True},
        "seconds text": {"seconds": "8"}, "seconds list": {"seconds": [8]}, "tokens text": {"ledgerSLASHgenerated_tokens": "x"},
        "tokens huge": {"ledgerSLASHgenerated_tokens": 10**400}, "tokens 1e308": {"ledgerSLASHgenerated_tokens": 1e308}, "NaN": {"text": '{"step": 4, "eval/accuracy": NaN}'},
        "seconds infinite": {"text": '{"step": 4, "eval/accuracy": 0.4, "seconds": Infinity}'}, "list": {"text": "[4]"}, "text": {"text": "hello"},
        "deep": {"text": "[" * 100000}, "no step": {"drop": ("step",)}, "digits": {"text": '{"step": ' + "9" * 5000 + "}"},
    }.items():  # fmt: skip
        yield f"again:report:metrics {name}", "report", read_again("report", rows, 4, **how)
    for name, how in {
        "list": {"text": "[1]"}, "null": {"text": "null"}, "empty": {"text": ""}, "deep": {"text": "[" * 100000}, "seed text": {"seed": "1"}, "seed list": {"seed": [1]},
        "seed null": {"seed": None}, "train a number": {"train": 3}, "steps text": {"train__steps": "6"}, "steps null": {"train__steps": None},
        "selection text": {"selection": "dots"}, "selection.name list": {"selection__name": ["dots"]}, "fresh text": {"replay__fresh": "1"},
        "no train": {"drop": ("train",)}, "empty object": {"text": "{}"}, "data a list": {"data": [1]}, "dotted": {"text": '{"a.b": 1}'},
    }.items():  # fmt: skip
        for program in ("report", "explore"):
            yield f"again:{program}:config {name}", program, read_again(program, "config.json", **how)
    for name, how in {
        "ids text": {"ids": ["a"] * 4}, "ids out": {"ids": [1, 2, 3, 99]}, "ids negative": {"ids": [1, 2, 3, -1]}, "ids huge": {"ids": [1, 2, 3, 10**30]},
        "ids floats": {"ids": [0.5, 1, 2, 3]}, "ids number": {"ids": 3}, "ids null": {"ids": None}, "ids short": {"ids": [1]}, "ids nested": {"ids": [[1], [2], [3], [4]]},
        "asked out": {"asked": [1, 2, 3, 640]}, "asked text": {"asked": "abcd"}, "asked short": {"asked": [1]}, "successes short": {"successes": [1]},
        "successes text": {"successes": ["1"] * 4}, "successes null": {"successes": [None] * 4}, "successes many": {"successes": [5, 5, 5, 5]},
        "successes negative": {"successes": [-1, 0, 0, 0]}, "rollouts 0": {"rollouts": 0}, "rollouts text": {"rollouts": "4"}, "rollouts null": {"rollouts": None},
        "predicted short": {"predicted": [0.5]}, "predicted text": {"predicted": ["x"] * 4}, "predicted null": {"predicted": [None] * 4},
        "predicted infinite": {"text": None, "predicted": [1e400] * 4}, "asked_predicted short": {"asked_predicted": [0.1]}, "pool text": {"pool": "x"},
        "pool number": {"pool": 3}, "asked_successes long": {"asked_successes": [1] * 9}, "step text": {"step": "3"}, "no ids": {"drop": ("ids",)},
        "no asked": {"drop": ("asked",)}, "no asked_successes": {"drop": ("asked_successes",)}, "no successes": {"drop": ("successes",)},
        "no rollouts": {"drop": ("rollouts",)}, "no predicted": {"drop": ("predicted",)}, "no pool": {"drop": ("pool",)}, "no asked_predicted": {"drop": ("asked_predicted",)},
        "list": {"text": "[3]"}, "deep": {"text": "[" * 100000},
    }.items():  # fmt: skip
        yield f"again:explore:groups {name}", "explore", read_again("explore", "groups.jsonl", 2, **how)
    for keep in (0, 1, 2, 3):
        yield f"again:explore:{keep} groups", "explore", only("explore", "groups.jsonl", keep)
    for name, how in {
        "no reward": {"drop": ("reward",)}, "no verdict": {"drop": ("verdict",)}, "no question": {"drop": ("question",)}, "no tokens": {"drop": ("tokens",)},
        "no ended": {"drop": ("ended",)}, "no batch": {"drop": ("batch",)}, "reward text": {"reward": "1"}, "reward null": {"reward": None}, "reward list": {"reward": [1]},
        "reward 1e308": {"reward": 1e308}, "reward 7": {"reward": 7.0}, "verdict unknown": {"verdict": "maybe"}, "verdict null": {"verdict": None}, "verdict list": {"verdict": ["wrong"]},
        "question number": {"question": 3}, "question list": {"question": ["q:1"]}, "question unknown": {"question": "r:1"}, "tokens text": {"tokens": "3"},
        "tokens null": {"tokens": None}, "tokens negative": {"tokens": -3}, "ended text": {"ended": "no"}, "ended null": {"ended": None}, "batch text": {"batch": "0"},
        "batch negative": {"batch": -1}, "batch list": {"batch": [0]}, "batch null": {"batch": None}, "batch float": {"batch": 0.5}, "batch beyond": {"batch": 4},
        "batch huge": {"batch": 10**30}, "list": {"text": "[1]"}, "deep": {"text": "[" * 100000}, "question twice": {"question": "q:0"}, "sample text": {"sample": "0"},
    }.items():  # fmt: skip
        yield f"again:evaluate:completions {name}", "evaluate", read_again("evaluate", "completions.jsonl", 1, **how)
    for name, how in {
        "list": {"text": "[1]"},
        "null": {"text": "null"},
        "deep": {"text": "[" * 100000},
        "samples text": {"samples": "1"},
        "mesh list": {"mesh": []},
    }.items():
        yield f"again:evaluate:config {name}", "evaluate", read_again("evaluate", "config.json", **how)

    # 5. Questions and the rest.
    for name, text in {
        "problem list": [{"problem": [1, [2]], "answer": "1"}], "problem dict": [{"problem": {"a": 1}, "answer": "1"}], "number": [3], "null": [None],
        "nested list": [[1, 2, 3]], "numbers": [{"problem": 3, "answer": 4}], "deep": '{"problem": "1=", "answer": ' + "[" * 100000 + "]" * 100000 + "}\n",
        "deep value": '{"problem": "1=", "answer": ' + "[" * 900 + "]" * 900 + "}\n", "big number": '{"problem": "1=", "answer": ' + "9" * 5000 + "}\n",
        "level dict": [{"problem": "1=", "answer": "1", "level": {"a": 1}}], "surrogate": '{"problem": "\\ud800", "answer": "1"}\n',
        "level big": '{"problem": "s1=", "answer": "1", "level": "' + "9" * 30 + '"}\n', "infinite answer": '{"problem": "1=", "answer": Infinity}\n', "empty": "",
        "other letters": [{"problem": "hello", "answer": "1"}], "key null": [{"problem": None, "answer": None}],
    }.items():  # fmt: skip
        for program in ("main", "evaluate"):
            yield f"questions:{program}:{name}", program, with_questions(program, text)
    levels = [row | {"d": value} for row, value in zip(QUESTIONS, ("1", "x", None, [1], 2, 3, 4, 5))]
    yield "questions:main:label text", "main", with_questions("main", levels, **{"data.label": "d"})
    yield (
        "questions:main:label infinite",
        "main",
        with_questions("main", [row | {"d": 1e400} for row in QUESTIONS], **{"data.label": "d"}),
    )
    yield (
        "questions:main:label huge",
        "main",
        with_questions("main", [row | {"d": 10**400} for row in QUESTIONS], **{"data.label": "d"}),
    )
    yield "questions:main:label dash", "main", with_questions("main", QUESTIONS, **{"data.label": "-"})
    yield "questions:main:json dict", "main", with_questions("main", '{"a": 1}', name="q.json")
    yield (
        "questions:main:family dict",
        "main",
        with_questions("main", [row | {"subject": {"a": 1}} for row in QUESTIONS]),
    )
    for name, argv in {
        "report flag": ("report", ["--foo=1"]), "report nowhere": ("report", ["/nowhere"]), "report long": ("report", ["x" * 5000]), "explore nowhere": ("explore", ["/nowhere"]),
        "explore file": ("explore", [os.path.join(POLICY, "config.json")]), "explore long": ("explore", ["x" * 5000]), "explore empty": ("explore", [""]), "report empty": ("report", [""]),
        "workdir long": ("main", ["--workdir=" + "x" * 5000]), "policy long": ("main", ["--config.policy.path=" + "x" * 5000]), "root long": ("main", ["--config.data.root=" + "x" * 5000]),
        "sets long": ("evaluate", [f"--model={POLICY}", "--sets=" + "x" * 5000]), "rates directory": ("fit", [f"--rates={POLICY}", f"--embeddings={POLICY}"]),
        "memory": ("plan", ["--device_memory=1e400GB"]), "memory digits": ("plan", ["--device_memory=" + "9" * 400 + "GB"]), "devices": ("plan", ["--devices=" + "9" * 30]),
        "mesh": ("plan", ["--config.mesh.data=" + "9" * 30]), "devices many": ("plan", ["--devices=1000000000", "--config.mesh.data=1", "--config.mesh.fsdp=-1"]),
        "baseline": ("report", [POLICY, "--baseline=x"]), "coordinator": ("main", ["--coordinator=x", "--num_processes=1", "--process_id=0"]),
        "processes": ("main", ["--num_processes=" + "9" * 30, "--process_id=0", "--coordinator=localhost:1"]),
    }.items():  # fmt: skip
        yield f"flags:{name}", argv[0], (lambda argv: lambda room: argv)(argv[1])


CASES = list(_cases())
