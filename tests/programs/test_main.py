import errno
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dots_jax import experiment, main
from dots_jax.core import command_line, config_rules, fields, files
from dots_jax.core.errors import UserError
from dots_jax.learner import UpdateSpec

DEFAULT = "configs/quickstart.py"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raises.py").write_text("def get_config():\n    return 1 / 0\n")
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "syntax.py").write_text("def get_config(:\n")
    (tmp_path / "number.py").write_text("def get_config():\n    return 3\n")
    text = "from configs import common\ndef get_config():\n    c = common.get_config()\n    "
    (tmp_path / "old.py").write_text(f"{text}c.reward = 'exact'\n    return c\n")
    (tmp_path / "older.py").write_text(f"{text}del c.reward\n    c.reward = 'exact'\n    return c\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--foo=1"], "--foo"),
        (["--wrkdir=x"], "did you mean --workdir?"),
        (["--workdir"], "workdir"),
        (["--workdir=raises.py"], "is a file"),
        (["junk"], "'junk'"),
        (["--config=nowhere.py"], "'nowhere.py'"),
        (["--config"], "needs a value"),
        (["--config=raises.py"], "raises.py failed at line 2: ZeroDivisionError"),
        (["--config=syntax.py"], "syntax.py failed at line 1: SyntaxError"),
        (["--config=empty.py"], "no function get_config"),
        (["--config=number.py"], "returned int"),
        (["--config=configs/quickstart.py:huge"], "no 'huge' in the config's argument"),
        (
            ["--config.replay.fresh_fraction=0.0"],
            "config.replay.fresh_fraction=0.0 must be a number above 0 and at most 1",
        ),
        (["--config.replay.fresh=0.5"], "config.replay.fresh is now called config.replay.fresh_fraction"),
        (["--config.replay.fresh_fraction=1.5"], "at most 1"),
        (
            ["--config.replay.fresh_fraction=0.3"],
            "is 4.8 groups; use a share that gives a whole number, such as 0.3125",
        ),
        (["--config.replay.capacity=7"], "config.replay.capacity=7 is less than the 8 groups that a step draws"),
        (
            [
                "--config.replay.fresh_fraction=0.25",
                "--config.replay.capacity=8",
                "--config.selection.reuse_references=0",
            ],
            "less than the 12 groups",
        ),
        (["--config.replay.capacity=100000"], "more than the pool's config.data.num_questions=4096"),
        (["--config.replay.last_step=2"], "ends replay before it starts"),
        (["--config.replay.start=soon"], "round, full"),
        (["--config.learner.loss=best"], "plain, decoupled, truncated_is"),
        (["--config.learner.loss=truncated"], "is now called truncated_is"),
        (
            ["--config.learner.micro_rows=64"],
            "config.learner.micro_rows is now replaced by config.learner.micro_tokens",
        ),
        (["--config.selection.reuse_references=8"], "below the 8 fresh groups"),
        (["--config.seed=99999999999"], "from 0 to 4,294,967,295"),
        (["--config.train.step=4"], "did you mean config.train.steps?"),
        (["--config.group_size=4"], "did you mean config.rollout.group_size?"),
        (["--config.train=4"], "group of fields"),
        (["--config.train.steps=abc"], "--config.train.steps=abc must be a whole number"),
        (["--config.learner.remat=perhaps"], "none, named"),
        (["--config.train.steps"], "config.train.steps"),
        (["--config.reward=exakt"], "did you mean exact?"),
        (["--config.reward", "nothing.py:score"], "no file nothing.py"),
        (["--config.reward.answer=last"], "config.reward.answer=last has no effect with config.reward=exact"),
        (["--config.reward.answer=first"], "config.reward.answer='first' must be one of box, marked, last"),
        (["--config=old.py"], "old.py failed at line 4: TypeError"),
        (["--config=old.py"], "config.reward is now called config.reward.name"),
        (["--config=older.py"], "config.reward is now called config.reward.name"),
        (["--config.train.steps=0"], "from 1 to 1,000,000"),
        (["--config.train.batch_size=33"], "does not divide"),
        (["--config.learner.aggregation=best"], "token, sequence"),
        (["--config.seed=1", "--config.learner.clip=1.0"], "between 0 and 1"),
        (["--config.learner.clip=0.1,0.2,0.3"], "a list of 1 or 2, each a number between 0 and 1"),
    ],
)
def test_mistakes_are_one_line_and_code_2(args, said, capsys, tmp_path):
    before = sorted(os.listdir(tmp_path))
    called = []
    assert command_line.run(lambda config, _: called.append(experiment.check(config)), DEFAULT, "help", args) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err
    assert not called and sorted(p for p in os.listdir(tmp_path) if p != "__pycache__") == before


def test_flags_reach_the_function_from_any_directory(tmp_path):
    got = []
    args = ["--config.train.steps", "7", "--noconfig.learner.advantage_std", "--config.learner.betas=0.8,0.95"]
    args += ["--config.reward=math", "--config.reward.answer=last"]
    args.append("--config.learner.clip=0.3")
    assert command_line.run(lambda *a: got.append(a), DEFAULT, "help", args) == 0
    config, workdir = got[0]
    assert workdir == os.path.join("runs", "quickstart")
    assert (config.train.steps, config.learner.advantage_std) == (7, False)
    assert tuple(config.learner.betas) == (0.8, 0.95)
    assert config.reward.to_dict() == {"name": "math", "answer": "last"}
    assert UpdateSpec.from_config(config).clip == (0.3, 0.3)
    assert config.data.name == "arithmetic" and os.listdir(tmp_path) and not os.path.exists("runs")


def test_a_config_of_the_current_directory_comes_first_and_takes_an_argument(tmp_path):
    (tmp_path / "configs").mkdir()
    text = "from configs import common\ndef get_config(size):\n    c = common.get_config()\n    c.data.name = size\n"
    (tmp_path / "configs" / "quickstart.py").write_text(text + "    return c\n")
    config, workdir = command_line.parse(["--config=configs/quickstart.py:tiny"], DEFAULT)
    assert config.data.name == "tiny" and workdir == os.path.join("runs", "quickstart-tiny")
    with pytest.raises(UserError, match="wants an argument"):
        command_line.parse([], DEFAULT)


def test_errors_of_the_function(capsys):
    def fails(error):
        def function(config, workdir):
            raise error

        return command_line.run(function, DEFAULT, "help", [], interrupted="; the same command continues")

    assert fails(UserError("the prompt\nis long")) == 2
    assert capsys.readouterr().err == "error: the prompt is long\n"
    assert fails(KeyboardInterrupt()) == 130
    assert "same command continues" in capsys.readouterr().err
    with pytest.raises(ValueError, match="a bug"):
        fails(ValueError("a bug"))


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["main", "--help"], 141, "what read the output has ended\n"),
        (["report", "--help"], 141, "what read the output has ended\n"),
        (["report", "nowhere"], 2, "error: no workdir"),
    ],
    ids=str,
)
def test_nobody_reads_the_output(flags, code, said, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    run = functools.partial(subprocess.run, [sys.executable, "-m", f"dots_jax.{flags[0]}", flags[1]], cwd=files.ROOT)
    done = run(env=env, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=600)
    assert done.returncode == code and done.stderr.startswith(said) and done.stderr.count("\n") == 1
    assert run(env=env, stdout=writer, stderr=writer, timeout=600).returncode == code
    os.close(writer)


def test_another_broken_pipe_is_no_reader_of_the_output(capsys):
    def function(config, workdir):
        print("pending")
        raise BrokenPipeError(errno.EPIPE, "Broken pipe", "socket")

    assert command_line.run(function, DEFAULT, "help", []) == 2
    assert "cannot read or write socket" in capsys.readouterr().err


def test_an_interrupt_is_not_lost_where_python_ignores_errors(capsys):
    class Collected:
        def __del__(self):
            raise KeyboardInterrupt

    def function(config, workdir):
        Collected()
        for _ in range(100):
            time.sleep(0.1)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        assert command_line.run(function, DEFAULT, "help", []) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted" in capsys.readouterr().err


def test_help_and_mistakes_do_not_load_jax(tmp_path):
    code = (
        "import sys; from dots_jax import main; codes = [main.main(['--help']), main.main(['--foo'])]; "
        "sys.exit(codes != [0, 2] or 'jax' in sys.modules)"
    )
    env = os.environ | {"PYTHONPATH": files.ROOT}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--workdir" in done.stdout and "configs/quickstart.py" in done.stdout and "{" not in done.stdout


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rollout.group_size", 1),
        ("rollout.temperature", 0.0),
        ("rollout.slots", -1),
        ("eval.samples", 0),
        ("eval.temperature", -0.1),
        ("learner.aggregation", "mean"),
        ("learner.betas", (0.9,)),
        ("learner.learning_rate", float("nan")),
        ("policy.dtype", "float64"),
        ("mesh.data", 0),
        ("data.num_questions", 8),
        ("train.keep_checkpoints", True),
        ("data.num_questions", 31),  # below the budget of a round
        ("selection.references", 4097),
        ("selection.references", 0),
        ("selection.reuse_references", 17),
        ("selection.target", 1.5),
        ("selection.temperature", 0.0),
        ("predictor.window", 7),
        ("predictor.labels", "none"),
        ("predictor.calibration", "platt"),
        ("predictor.half_life", 0.0),
        ("embedding.dtype", "int8"),
    ],
)
def test_check_names_the_field(field, value):
    config = command_line.load(DEFAULT)
    experiment.check(config)
    *path, last = field.split(".")
    part = config
    for name in path:
        part = part[name]
    with part.ignore_type():
        part[last] = value
    with pytest.raises(UserError, match=f"config.{field.split('.')[0]}"):
        experiment.check(config)


@pytest.mark.parametrize(
    ("path", "rules"),
    [
        (DEFAULT, config_rules.RUN),
        ("configs/orz.py", config_rules.RUN),
        ("configs/own.py", config_rules.RUN),
        ("configs/evaluate.py", config_rules.EVALUATE),
        ("configs/difficulty_fit.py", config_rules.FIT),
        ("configs/quickstart_pretrain.py", config_rules.PRETRAIN),
    ],
)
def test_every_field_has_a_rule(path, rules):
    """And the rules stand in the order of the config's fields."""
    assert sorted(rules) == sorted(fields.flatten(command_line.load(path).to_dict()))
    file = "configs/common.py" if rules is config_rules.RUN else path
    source = Path(files.ROOT, file).read_text()
    at = [source.index(f"    c.{field} = ") for field in rules]
    assert at == sorted(at)


def test_presets():
    code, paper = command_line.load(f"{DEFAULT}:dots_code"), command_line.load(f"{DEFAULT}:dots_paper")
    for same in ("dots_code", "dots_rr,dots_code"):
        assert code.to_dict() | {"name": 0} == command_line.load(f"{DEFAULT}:{same}").to_dict() | {"name": 0}
    assert command_line.load(DEFAULT).to_dict() == command_line.load(f"{DEFAULT}:dots_rr").to_dict()
    assert (code.learner.advantage_std, code.predictor.calibration, code.predictor.refit) == (True, "code", True)
    assert (paper.learner.advantage_std, paper.predictor.calibration, paper.predictor.refit) == (False, "paper", False)
    assert code.selection.reuse_references == 0 < paper.selection.reuse_references <= paper.selection.references
    assert (code.replay.start, code.replay.insert, code.learner.loss) == ("round", "batch", "decoupled")
    assert (paper.replay.start, paper.replay.insert, paper.learner.loss) == ("full", "useful", "plain")
    experiment.check(paper)
    methods = {
        name: command_line.load(f"{DEFAULT}:{name}") for name in ("grpo", "dots", "rr", "dots_rr", "rr,dots_paper")
    }
    assert {name: (c.selection.name, c.replay.fresh_fraction < 1) for name, c in methods.items()} == {
        "grpo": ("uniform", False),
        "dots": ("dots", False),
        "rr": ("uniform", True),
        "dots_rr": ("dots", True),
        "rr,dots_paper": ("uniform", True),
    }
    modern = command_line.load(f"{DEFAULT}:grpo,modern")
    assert (modern.learner.clip, modern.learner.aggregation, modern.learner.kl_coef) == ((0.2, 0.28), "token", 0.0)
    assert modern.learner.drop_silent and not modern.learner.advantage_std and modern.replay.fresh_fraction == 1
    for config in (*methods.values(), modern):
        experiment.check(config)
    with pytest.raises(UserError, match="only one of grpo, dots, rr, dots_rr at a time.*dots,rr"):
        command_line.load(f"{DEFAULT}:dots,rr")
    with pytest.raises(UserError, match="dots_papers.*dots_code, dots_paper, modern.*grpo, dots, rr, dots_rr"):
        command_line.load(f"{DEFAULT}:dots_papers")


def test_a_config_of_another_program_or_with_a_field_too_many(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text("from configs import quickstart\ndef get_config():\n  c = quickstart.get_config()\n"
                    "  c.train.stepz = 3\n  return c\n")  # fmt: skip
    for config, said in (("configs/quickstart_pretrain.py", "lacks the field"), (path, "config.train.stepz")):
        assert main.main([f"--config={config}", f"--workdir={tmp_path / 'run'}"]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and said in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("cause", "message"), [(KeyboardInterrupt, "interrupted\n"), (ValueError, "a bug")])
def test_an_interrupted_import_is_a_line(cause, message):
    """Also where an extension makes an ImportError of it; any other error is shown as it is."""
    code = f"""
from dots_jax.core import errors
errors.quiet_interrupts()
try:
    raise {cause.__name__}("a bug")
except BaseException as error:
    raise ImportError("of an extension") from error
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=files.ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and message in done.stderr
    assert ("Traceback" in done.stderr) == (cause is ValueError)
