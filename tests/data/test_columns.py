"""Rows of files: which columns are the question and its answer, options, kinds of files."""

import gzip
import json

import pytest
from rows import read

from dots_jax.core.errors import UserError
from dots_jax.data import sources


def test_an_empty_column_does_not_hide_a_full_one(tmp_path):
    for empty in (None, "", "  ", [], float("nan")):
        row = {"problem": empty, "question": "How many?", "answer": empty, "final_answer": "7"}
        assert read(tmp_path / "a.jsonl", row) == [("How many?", "7")]
    assert read(tmp_path / "a.jsonl", {"Question": "How many?", " Answer": 0}) == [("How many?", "0")]
    assert read(tmp_path / "a.jsonl", {"problem": "p", "answer": None}) == [("p", "")]


def test_answers_of_worked_solutions(tmp_path):
    for worked, answer in (
        (r"Add: \boxed{6}. No, \boxed{\frac{7}{1}}.", r"\frac{7}{1}"),
        (r"Both \boxed{1} and \boxed{2}.", "1, 2"),
        ("3 + 4\n#### 7", "7"),
        ("It follows.", ""),
    ):
        assert read(tmp_path / "a.jsonl", {"problem": "p", "answer": "", "solution": worked}) == [("p", answer)]
    assert read(tmp_path / "a.jsonl", {"problem": "p", "solution": r"\boxed{8}", "answer": "7"}) == [("p", "7")]


def test_alpaca_and_other_text_of_a_row(tmp_path):
    path = tmp_path / "a.jsonl"
    alpaca = {"instruction": "Add these.", "input": "3, 4", "output": "7"}
    assert read(path, alpaca, alpaca | {"input": ""}) == [("Add these.\n\n3, 4", "7"), ("Add these.", "7")]
    assert read(path, alpaca | {"output": r"So \boxed{7}."})[0][1] == "7"
    assert read(path, {"input": "3 + 4", "target": "7"}) == [("3 + 4", "7")]
    assert read(path, {"context": "Tom has 7.", "question": "How many?", "answer": 7}) == [
        ("Tom has 7.\n\nHow many?", "7")
    ]
    assert read(path, {"problem": "p", "input": "p", "answer": "7"}) == [("p", "7")]


LETTERED = "Prime?\n\nA. 4\nB. 6\nC. 7\nD. 9"


@pytest.mark.parametrize(
    "row",
    [
        {"choices": ["4", "6", "7", "9"], "answer": 2},
        {"choices": ["4", "6", "7", "9"], "answer": "C"},
        {"choices": ["4", "6", "7", "9"], "answer": "(c)"},
        {"choices": ["4", "6", "7", "9"], "answer": "C. 7"},
        {"choices": ["4", "6", "7", "9"], "answer": "$7$"},
        {"choices": [4, 6, 7, 9], "answer": 7},
        {"choices": {"label": ["A", "B", "C", "D"], "text": ["4", "6", "7", "9"]}, "answerKey": "C"},
        {"choices": {"label": ["1", "2", "3", "4"], "text": ["4", "6", "7", "9"]}, "answerKey": "3"},
        {"choices": [{"label": x, "text": t} for x, t in zip("abcd", "4679", strict=True)], "answerKey": "c"},
        {"options": {"A": "4", "B": "6", "C": "7", "D": "9", "E": None}, "answer": "C"},
        {"options": ["A) 4", "B) 6", "C) 7", "D) 9"], "answer": "C"},
        {"options": "['4', '6', '7', '9']", "answer": "7"},
        {"options": "4, 6, 7, 9", "answer": "7"},
        {"A": "4", "B": "6", "C": "7", "D": "9", "answer": "C"},
        {"A": 4, "B": 6, "C": 7, "D": 9, "E": None, "answer": "C"},
    ],
)
def test_options_get_letters(tmp_path, row):
    assert read(tmp_path / "a.jsonl", {"question": "Prime?"} | row) == [(LETTERED, "C")]
    assert read(tmp_path / "a.jsonl", {"question": LETTERED} | row) == [(LETTERED, "C")]  # it has them


def test_options_that_are_none(tmp_path):
    for empty in ([], None, {"label": [], "text": []}, {"A": None}):
        assert read(tmp_path / "a.jsonl", {"question": "p", "choices": empty, "answer": "7"}) == [("p", "7")]
    assert read(tmp_path / "a.jsonl", {"problem": "p", "a": 3, "b": 4, "answer": 7}) == [("p", "7")]
    for listed in ("a ) 4 , b ) 7", r"['\frac{1}{2}', '\pi']"):
        row = {"problem": "p", "options": listed, "answer": "b"}
        assert read(tmp_path / "a.jsonl", row) == [(f"p\n\n{listed}", "b")]
    row = {"problem": "p", "options": r"['\\frac{1}{2}', '\\pi']", "answer": "b"}
    assert read(tmp_path / "a.jsonl", row) == [("p\n\nA. \\frac{1}{2}\nB. \\pi", "B")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"choices": ["4", "7"], "answer": "9"}, "row 0 of .*: the answer '9' is not one of the 2 options in choices"),
        ({"choices": ["4", "7"], "answer": 2}, "not one of the 2 options"),  # counted from 1?
        ({"choices": ["1", "0"], "answer": "1"}, "not one of"),  # an option's text and another's number
        ({"choices": ["7", "7"], "answer": "7"}, "not one of"),
        ({"choices": ["4", "7"], "answer": ["A", "B"]}, "not one of"),
        ({"A": "4", "B": "7", "answer": "9"}, "the 2 options in columns A, B, .."),
        ({"options": ["7"], "answer": "A"}, "options holds no list of 2 to 26 texts"),
        ({"options": ["7", None], "answer": "A"}, "options holds no list"),
        ({"options": [[["7"]], "8"], "answer": "A"}, "options holds no list"),
        ({"options": {"seed": 1, "temperature": 2}, "answer": "A"}, "options holds no list"),
        ({"options": {"label": ["A"], "text": ["4", "7"]}, "answer": "A"}, "options holds no list"),
        ({"options": {"label": [["A"], "B"], "text": ["4", "7"]}, "answer": "A"}, "options holds no list"),
        ({"options": {"text": 3}, "answer": "A"}, "options holds no list"),
        ({"options": 7, "answer": "A"}, "options holds no list"),
        ({"options": "('4',)", "answer": "A"}, "options holds no list"),
        ({"options": ["\ud800", "7"], "answer": "B"}, "the problem is not UTF-8 text"),
        ({"context": {"title": "t"}, "answer": "1"}, "the column context is no text; make it text, rename or remove"),
        ({"images": ["a.png"], "answer": "1"}, "has an 'images' column, which the policy cannot see"),
    ],
)
def test_text_that_cannot_be_used_is_refused(tmp_path, row, said):
    with pytest.raises(UserError, match=said) as error:
        read(tmp_path / "a.jsonl", {"question": "p"} | row)
    assert "\n" not in str(error.value)


def test_binary_columns_are_text(tmp_path):
    row = {"problem": "How many €?".encode(), "choices": [b"4", b"7"], "answer": b"7", "subject": b"sums"}
    assert read(tmp_path / "a.parquet", row) == [("How many €?\n\nA. 4\nB. 7", "B")]
    assert sources.rows(str(tmp_path / "a.parquet"), {}, "")[0][0]["subject"] == "sums"
    row = {"problem": "p", "choices": [b"A) 4", b"B) 7"], "answer": b"B"}
    assert read(tmp_path / "a.parquet", row) == [("p\n\nA. 4\nB. 7", "B")]
    row = {"problem": "p", "answer": "7", "thumbnail": b"\xff"}
    assert read(tmp_path / "a.parquet", row) == [("p", "7")]
    for name in ("problem", "answer"):
        with pytest.raises(UserError, match=f"the {name} is not UTF-8 text"):
            read(tmp_path / "a.parquet", row | {name: b"\xff"})


def test_kinds_of_files(tmp_path):
    wanted = [('How\nmany, "€"?', "7"), ("p\u2028q", "8")]
    rows = [{"problem": p, "answer": a} for p, a in wanted]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    table = 'problem,answer\r\n"How\nmany, ""€""?",7\r\n\r\np\u2028q,8\r\n'
    tabs = table.replace("problem,", "problem\t").replace(",7", "\t7").replace(",8", "\t8")
    for name, text in (
        ("a.jsonl", lines),
        ("a.jsonl", lines.replace("\n", "\r\n\r\n")),
        ("a.json", lines),
        ("a.json", json.dumps(rows, indent=1)),
        ("a.csv", table),
        ("a.tsv", tabs),
    ):
        for encoding in ("utf-8", "utf-8-sig"):
            assert read(tmp_path / name, text.encode(encoding)) == wanted, name
            assert read(tmp_path / (name + ".gz"), gzip.compress(text.encode(encoding))) == wanted, name
    assert read(tmp_path / "a.json", json.dumps(rows[0])) == wanted[:1]
    long = "x" * 10**7
    assert read(tmp_path / "a.csv", f"problem,answer\n{long},7\n") == [(long, "7")]
