import json
import math

import numpy as np
import pytest

from dots_jax import report
from dots_jax.analysis import compare as comparison
from dots_jax.analysis import tables

EVERY = 10  # steps between evaluations


def make(directory, accuracies, seed=0, tokens=100, seconds=2.0, old=False, extra=None, **fields):
    """A workdir: `accuracies` at steps 0, 10, ..; `tokens` and `seconds` per step; a fifth of the tokens references."""
    config = {
        "seed": seed,
        "name": f"{directory.name}",
        "train": {"steps": 30, "keep_checkpoints": seed},
        "data": {"seed": 1},
    }
    config |= {
        "selection": {"name": "uniform"},
        "learner": {"learning_rate": 1e-4},
        "eval": {},
        "replay": {},
        "predictor": {"learning_rate": 1},
    }
    for field, value in fields.items():
        room, _, name = field.partition("__")
        config[room][name] = value
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    lines = []
    for step in range(EVERY * (len(accuracies) - 1) + 1):
        exams = step // EVERY + 1
        row = {"step": step, "seconds": seconds * step + 7 + exams, "ledger/generated_tokens": tokens * step}
        row |= {"ledger/trained_tokens": tokens * step, "ledger/scored_tokens": 0}
        row |= {
            "ledger/seconds_compile": 7,
            "ledger/seconds_evaluation": exams,
            "ledger/seconds_update": seconds * step,
        }
        if not old:
            row |= {"ledger/generated_reference": tokens * step // 5, "ledger/generated_fresh": tokens * step * 4 // 5}
            row |= {"ledger/generated_refill": 0, "ledger/generated_screening": 0}
            row |= {"predictor/pearson": None if step % 2 else 0.5 + step / 100}
        if step:
            row |= {"train/useful_groups": step / 100, "train/silent_groups": 4}
        if step % EVERY == 0:
            row["eval/accuracy"] = accuracies[step // EVERY]
        lines.append(json.dumps(row | (extra or {})) + "\n")
    (directory / "metrics.jsonl").write_text("".join(lines) + '{"step": 1000, "torn')
    return str(directory)


@pytest.fixture
def uniform(tmp_path):
    curves = ([0.1, 0.2, 0.4, 0.5], [0.1, 0.6, 0.5, 0.6], [0.1, 0.3, 0.65, 0.7])  # last ones: 0.6 on average
    return [make(tmp_path / f"u{seed}", curve, seed) for seed, curve in enumerate(curves)]


@pytest.fixture
def dots(tmp_path):
    curves = ([0.1, 0.7, 0.7, 0.7], [0.1, 0.2, 0.3, 0.65])
    how = {"tokens": 150, "seconds": 1.0, "selection__name": "dots"}
    return [make(tmp_path / f"d{seed}", curve, seed, **how) for seed, curve in enumerate(curves)]


def compare(workdirs, baseline=""):
    return comparison.compare(comparison.group([comparison.load(workdir) for workdir in workdirs]), baseline)


def test_the_first_crossing_counts_for_all_and_never_is_infinite(uniform, dots):
    found = compare([*dots, *uniform])
    assert found["baseline"] == "uniform" and found["target"] == pytest.approx(0.6)
    base, method = (found["methods"][name] for name in ("uniform", "dots"))
    for found_at in (base["reached"], method["reached"]):  # of as many tokens generated and trained on
        assert found_at.pop("h100") == pytest.approx([n / 29_410 + n / 31_000 for n in found_at["tokens"]])
    assert base["reached"] == {
        "steps": [math.inf, 10, 20],
        "tokens": [math.inf, 1000, 2000],
        "seconds": [math.inf, 20, 40],
    }
    assert method["reached"] == {"steps": [10, 30], "tokens": [1500, 4500], "seconds": [10, 30]}
    lines = tables.markdown(found, "").splitlines()
    # medians: of (inf, 10, 20) 20, of (10, 30) 20; tokens 2000 and 3000; seconds 40 and 20
    cells = "2 of 2 | 20 (10..30) | 0% (-50%..50%) | 3k (1.5k..4.5k) | -50% (-125%..25%) | 20 (10..30) | 50% (25%..75%)"
    assert f"| dots | {cells} |" in lines
    cells = "2 of 3 | 20 (10..∞) | 0% (never..50%) | 2k (1k..∞) | 0% (never..50%) | 40 (20..∞) | 0% (never..50%)"
    assert f"| uniform | {cells} |" in lines


def test_a_median_of_two_with_a_run_that_never_reaches_is_infinite(uniform, dots, tmp_path):
    poor = make(tmp_path / "poor", [0.1, 0.1, 0.1, 0.1], 1, selection__name="static")
    good = make(tmp_path / "good", [0.1, 0.9, 0.1, 0.1], 0, selection__name="static")
    text = tables.markdown(compare([*uniform, poor, good]), "")
    assert "| static | 1 of 2 | ∞ (10..∞) | never (never..50%) |" in text
    text = tables.markdown(compare([*uniform, poor, *dots], "static"), "")  # reached at step 0: nothing to save
    assert "| dots | 2 of 2 | 0 | – | 0 | – | 0 | – |" in text


def test_ends_of_the_runs(uniform, dots):
    methods = compare([*uniform, *dots])["methods"]
    assert methods["dots"]["accuracy"] == [0.7, 0.65]
    assert methods["uniform"]["seeds"] == [0, 1, 2] and methods["uniform"]["steps"] == [30, 30, 30]
    assert methods["dots"]["useful_groups"] == pytest.approx([0.155, 0.155])  # 0.01 .. 0.30
    assert methods["dots"]["pearson"] == pytest.approx([0.65, 0.65])  # steps 0, 2, .. 30; null left out
    assert methods["dots"]["tokens"] == [4500, 4500]
    assert methods["dots"]["tokens_by_phase"] == {
        "reference": [900] * 2,
        "fresh": [3600] * 2,
        "refill": [0] * 2,
        "screening": [0] * 2,
    }
    assert methods["uniform"]["seconds_by_phase"]["update"] == [60] * 3
    # dots less uniform at step 30: 0.2 and 0.05; standard error of two: half their distance
    difference = methods["dots"]["difference"]
    assert (difference["seeds"], difference["step"]) == (2, 30)
    assert (difference["mean"], difference["standard_error"]) == pytest.approx((0.125, 0.075))


def test_accuracy_at_equal_tokens(uniform, dots, tmp_path):
    found = compare([*uniform, *dots])
    assert found["budget"] == 3000  # dots generate as much in 20 steps
    assert found["methods"]["dots"]["at_budget"] == pytest.approx([0.7, 0.3])
    difference = found["methods"]["dots"]["difference_at_budget"]
    # less 0.5 and 0.6 of uniform's step 30
    assert (difference["seeds"], difference["mean"], difference["standard_error"]) == pytest.approx((2, -0.05, 0.25))
    assert "| dots | 0.500 ± 0.283 | -0.050 ± 0.250 | 2 |" in tables.markdown(found, "")
    less = make(tmp_path / "less", [0.1, 0.2, 0.3, 0.4], 0, tokens=75, selection__name="static")
    at = compare([*uniform, less])["methods"]["uniform"]["at_budget"]
    assert at == pytest.approx([0.425, 0.525, 0.6625])  # 2250 tokens: between steps 20 and 30
    assert compare([less])["budget"] == 2250


def test_claims_are_paired_and_say_when_they_cannot_tell(uniform, dots, tmp_path):
    claims = compare([*uniform, *dots])["methods"]["dots"]["claims"]
    # 4 silent groups a step: for 1,000 tokens 40 of 100 a step, 26.7 of 150
    assert claims["waste"]["value"] == pytest.approx(4 / 0.15 - 40) and claims["waste"]["high"] < 0
    # Seed 0: 1500 tokens against uniform's 3000, in which it does not get there; seed 1: 4500 against 1000.
    assert claims["tokens"] == pytest.approx(claims["tokens"] | {"value": (0.5 - 3.5) / 2, "seeds": 2}, nan_ok=True)
    half = 0.075 * 12.706  # t with one degree of freedom
    assert [claims["accuracy"][k] for k in ("low", "high")] == pytest.approx([0.125 - half, 0.125 + half], abs=1e-4)
    text = tables.markdown(compare([*uniform, *dots]), "")
    assert "| dots | -13.33 [-13.33, -13.33] | -150%, 2 seeds: no interval | " in text
    assert "| +0.125 [-0.828, +1.078], cannot tell |" in text


def test_the_medians_interval_covers_as_often_as_it_says():
    """Of 4,000 samples of eight, the order's interval holds the median in at least 95%, and not in all."""
    samples = np.random.default_rng(0).exponential(size=(4000, 8))
    found = [comparison.median_interval(list(x)) for x in samples]
    share = np.mean([f["low"] <= np.log(2) <= f["high"] for f in found])
    assert 0.95 < share < 1 and math.isnan(comparison.median_interval([1.0] * 5)["low"])
    never = comparison.median_interval([-math.inf, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert never["low"] == -math.inf and never["value"] == pytest.approx(0.35)
    assert comparison.median_interval([float(x) for x in range(12)]) == {"value": 5.5, "low": 2, "high": 9, "seeds": 12}


def test_the_baseline_does_not_replay(uniform, tmp_path):
    replaying = make(tmp_path / "rr", [0.1, 0.2], 0, replay__fresh_fraction=0.5)
    found = compare([replaying, *uniform])
    assert found["baseline"] == [*found["methods"]][1] and found["target"] == pytest.approx(0.6)
    assert compare([replaying])["target"] == 0.2


def test_runs_that_go_on_are_compared_at_the_last_step_that_all_have(uniform, dots, tmp_path):
    short = make(tmp_path / "short", [0.1, 0.2, 0.3], 1, selection__name="dots")
    found = compare([*uniform, dots[0], short])
    # at step 20: 0.7 - 0.4 and 0.3 - 0.5
    difference = found["methods"]["dots"]["difference"]
    assert difference["step"] == 20
    assert (difference["mean"], difference["standard_error"]) == pytest.approx((0.05, 0.25))
    assert "| dots | 2 (1 not finished) | 20..30 |" in tables.markdown(found, "")
    other = make(tmp_path / "other", [0.1, 0.2], 7, selection__name="static")  # a seed of its own
    assert compare([*uniform, other])["methods"]["static"]["difference"]["seeds"] == 0


def test_what_an_oracle_measures_is_shown_and_not_counted(uniform, tmp_path):
    extra = {"ledger/seconds_cost_excluded": 500.0, "ledger/cost_excluded_tokens": 9999}
    oracle = make(tmp_path / "oracle", [0.1, 0.9], extra=extra, selection__name="oracle")
    found = compare([*uniform, oracle])
    method = found["methods"]["oracle"]
    assert [method["reached"][name] for name in comparison.COSTS] == [[10], [1000], [20]]
    assert method["tokens"] == [1000] and method["cost_excluded_tokens"] == [9999]
    assert tables.markdown(found, "").count(" | 500 |\n") == 1


@pytest.mark.parametrize(
    "runs, labels",
    [
        ([{}], ["uniform"]),
        ([{}, {"selection__name": "dots", "predictor__width": 4}], ["uniform", "dots"]),
        ([{}, {"learner__clip": 0.1}], ["clip=–", "clip=0.1"]),
        ([{}, {"learner__learning_rate": 0.5}], ["learning_rate=0.0001", "learning_rate=0.5"]),
        (
            [{}, {"learner__learning_rate": 0.5}, {"predictor__learning_rate": 2}],
            [
                "predictor.learning_rate=1, learner.learning_rate=0.0001",
                "predictor.learning_rate=1, learner.learning_rate=0.5",
                "predictor.learning_rate=2, learner.learning_rate=0.0001",
            ],
        ),
        (
            [{}, {"learner__a": 1, "learner__b": 2, "learner__c": 3, "eval__d": 4, "learner__e": 5}],
            ["a=–, b=–, c=–, e=–, and 1 more", "a=1, b=2, c=3, e=5, and 1 more"],
        ),
        (
            [
                {},
                {"selection__name": "dots", "selection__interval": 1},
                {"selection__name": "dots", "selection__interval": 2},
            ],
            ["uniform", "dots, interval=1", "dots, interval=2"],
        ),
        (
            [{"learner__clip": 0.1}, {"learner__clip": 0.2, "selection__name": "dots"}],
            ["uniform, clip=0.1", "dots, clip=0.2"],
        ),
        ([{}, {"train__keep_checkpoints": 5, "seed": 3}], ["uniform"]),
    ],
)
def test_labels(runs, labels, tmp_path):
    workdirs = [make(tmp_path / str(i), [0.1, 0.2], **({"seed": i} | fields)) for i, fields in enumerate(runs)]
    assert list(comparison.group([comparison.load(workdir) for workdir in workdirs])) == labels


def test_given_labels(tmp_path, uniform):
    odd = make(tmp_path / "lr=3", [0.1, 0.2], seed=0, selection__name="dots")  # a directory's own name may hold "="
    methods = comparison.group([comparison.load(text) for text in (f"mine={uniform[0]}", odd, *uniform[1:])])
    assert [(label, len(runs)) for label, runs in methods.items()] == [("mine", 1), ("dots", 1), ("uniform", 2)]


def test_files_and_picture(uniform, dots, tmp_path, capsys):
    from matplotlib import image

    old = make(tmp_path / "old", [0.1, 0.2, 0.3, 0.6], old=True, learner__learning_rate=3)
    out = tmp_path / "new" / "out"
    argv = [*uniform, *dots, old, "--out=" + str(out)]
    assert report.main(argv) == 0
    shown = capsys.readouterr().out
    text = (out / "report.md").read_text()
    assert text in shown and "\n    python -m dots_jax.report " + " ".join(argv) + "\n" in text
    assert "| uniform, learning_rate=3 | 1 | 30 | 0.600 | +0.100 | 1, step 30 | 0.155 | 3,000 | – | – | – |" in text
    numbers = json.loads((out / "report.json").read_text())
    assert numbers["target"] == pytest.approx(0.6) and len(numbers["methods"]) == 3
    assert numbers["methods"]["uniform, learning_rate=0.0001"]["reached"]["steps"] == [None, 10, 20]
    picture = image.imread(out / "report.png")
    assert picture.shape[0] > 600 and picture.shape[1] > 1000
    assert len(np.unique((255 * picture[..., :3]) @ [1, 256, 65536])) > 100  # colours


def test_mistakes_are_one_line(uniform, dots, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    bare = tmp_path / "bare"
    make(bare, [0.1])
    (bare / "metrics.jsonl").unlink()
    blind = make(tmp_path / "blind", [None, None])
    data = make(tmp_path / "data", [0.1, 0.2], seed=9, data__seed=2)
    (tmp_path / "file").write_text("")
    for argv, said in (
        ([], "name at least one workdir"),
        ([str(tmp_path / "none")], "no workdir"),
        ([str(tmp_path / "empty")], "config.json"),
        ([str(bare)], "holds no metrics.jsonl"),
        ([blind], "no eval/accuracy"),
        ([*uniform, data], "config.data.seed is 1 and 2"),
        ([uniform[0], uniform[0]], "same method and config.seed=0"),
        ([*uniform, "--baseline=nothing"], "one of: uniform"),
        ([*uniform, "--outt=x"], "no such flag"),
        ([*uniform, "--out"], "no value"),
        ([*uniform, f"--out={tmp_path / 'file'}"], "cannot read or write"),
    ):
        assert report.main(argv) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1 and said in err, (argv, err)
    assert report.main(["--help"]) == 0 and "--baseline=LABEL" in capsys.readouterr().out
