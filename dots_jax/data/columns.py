"""What publishers call their columns: the problem and the answer of a row, whatever its shape."""

import ast
import re
from typing import Any

from dots_jax.core.errors import UserError
from dots_jax.reward.boxes import final_answer

# The first of these columns in which a row has text; several spellings, because every publisher has one of his own.
PROBLEM = ("problem", "question", "prompt", "query", "instruction", "input")
ANSWER = ("answer", "final_answer", "ground_truth", "expected_answer", "reward_model", "target", "answerkey")
WORKED = ("solution", "output")  # where no answer stands by itself: the box, or what follows ####
OPTIONS = ("choices", "options")  # or columns A, B, ..


def is_row(value: dict) -> bool:
    """Whether an object is one question, not a table of lists."""
    flat = not any(isinstance(x, dict | list) for x in value.values())
    return flat and any(str(name).strip().casefold() in PROBLEM for name in value)


def read(row: Any, number: int, origin: str) -> dict:
    """A row with its own columns and with "problem" and "answer", "" where it has none.

    To the problem belong Alpaca's `input`, a `context` or `passage`, and options under letters; then the answer is a
    letter. Raises UserError for what cannot be used.
    """
    where = f"row {number} of {origin}"
    if isinstance(row, dict) and {"0", "1"} <= row.keys():  # a list, as some readers hand it on
        row = row | {"problem": row["0"], "answer": row["1"]}
    if (
        isinstance(row, list) and len(row) == 2 and all(isinstance(part, str | dict) for part in row)
    ):  # a conversation: the question, and its answer
        row = {"problem": row[0], "answer": row[1]}
    if not isinstance(row, dict):
        raise UserError(f"{where} is {type(row).__name__}, not an object with a problem and an answer")
    fields = {str(name).strip().casefold(): value for name, value in row.items()}
    for names in (PROBLEM, ANSWER + WORKED):
        if not any(name in fields for name in names):
            has, choice = " ".join(", ".join(map(str, row)).split())[:200] or "nothing", ", ".join(names)
            raise UserError(f"{origin} lacks a column {names[0]!r}: row {number} has {has}; call it one of {choice}")

    def read_text(name: str) -> str:
        try:
            return text(fields.get(name)).strip()
        except RecursionError:
            raise UserError(f"{where}: the {name} is nested too deeply; mend or remove it") from None

    def read_first(names: tuple[str, ...]) -> tuple[str, str]:
        return next(((name, value) for name in names if (value := read_text(name))), ("", ""))

    problem_column, problem = read_first(PROBLEM)
    for name in ("input", "context", "passage"):
        if name == problem_column or not problem:
            continue
        if isinstance(fields.get(name), dict | list) and fields[name]:
            raise UserError(f"{where}: the column {name} is no text; make it text, rename or remove it")
        more = read_text(name)
        if more and more != problem:
            problem = f"{problem}\n\n{more}" if name == "input" else f"{more}\n\n{problem}"
    for name in ("image", "images"):
        if fields.get(name):
            raise UserError(
                f"{where} has an {name!r} column, which the policy cannot see; remove the row or the column"
            )
    column, answer = read_first(ANSWER + WORKED)
    if "####" in answer:  # GSM8K: the working, and the answer after it
        answer = answer.rpartition("####")[2].strip()
    elif column in WORKED:
        answer = final_answer(answer) or ("" if column == "solution" else answer)
    name, options, labels = _options(row, fields, where)
    texts = [text(x).strip() for x in options]
    if options and problem and answer:
        if not (all(x in problem for x in texts) and re.search(r"\bB\s*[).:]", problem)):  # it lists them itself
            problem += "\n\n" + "\n".join(f"{_letter(i)}. {x}" for i, x in enumerate(texts))
        by_number = isinstance(fields[column], int) and not isinstance(options[0], int | float)
        index = _index(answer, texts, labels, by_number)
        if index is None:
            raise UserError(
                f"{where}: the {column} {answer[:40]!r} is not one of the {len(options)} options in {name}; give the "
                "letter of one, or rename what holds the options"
            )
        answer = _letter(index)
    elif name and problem and not options:  # a text that lists them
        problem += f"\n\n{fields[name].strip()}"
    for name, value in (("problem", problem), ("answer", answer)):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{where}: the {name} is not UTF-8 text; mend or remove it") from error
    return row | {"problem": problem, "answer": answer}


def _options(row: dict, fields: dict, where: str) -> tuple[str, list, list[str]]:
    """The column of a row's options ("" without any), these as they are given, and their labels.

    Of a text that is no list the options are empty. Raises UserError for what is neither.
    """
    name = next((name for name in OPTIONS if fields.get(name)), "")
    given, labels = fields.get(name), None
    if not name and all(row.get(x) not in (None, "") for x in "AB"):
        name, given = "columns A, B, ..", [row[x] for x in "ABCDEFGHIJ" if row.get(x) not in (None, "")]
    if not name:
        return "", [], []
    if isinstance(given, str):
        if re.search(r"(?<!\\)(?:\\\\)*\\(?![\\'\"])", given):  # LaTeX that an escape would change
            return name, [], []
        try:
            given = ast.literal_eval(given.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return name, [], []
    if isinstance(given, list) and all(isinstance(x, dict) and "text" in x for x in given):
        given = {"text": [x["text"] for x in given], "label": [x.get("label") for x in given]}
    if isinstance(given, dict) and "text" in given:
        given, labels = given["text"], given.get("label")
    elif isinstance(given, dict):
        given = {label: x for label, x in given.items() if x is not None}
        given, labels = list(given.values()), list(given)
    if given == []:
        return "", [], []
    options = list(given) if isinstance(given, list | tuple) else []
    if not isinstance(labels, list) or None in labels:
        labels = [_letter(i) for i in range(len(options))]
    fine = 2 <= len(options) <= 26 and len(labels) == len(options)
    fine = fine and all(isinstance(x, str | bytes | int | float) and text(x).strip() for x in options)
    if not fine or not all(isinstance(x, str | int) and len(str(x)) < 3 for x in labels):
        raise UserError(f"{where}: {name} holds no list of 2 to 26 texts, or no label for each; mend or rename it")
    marks = [re.match(rf"\(?{_letter(i)}\s*[).:]\s*(?=\S)", text(x)) for i, x in enumerate(options)]
    if all(marks):  # "A) 5": the letter stands in the text
        options = [text(x)[mark.end() :] for x, mark in zip(options, marks, strict=True)]
    return name, options, [str(x).strip() for x in labels]


def _index(answer: str, options: list[str], labels: list[str], by_number: bool) -> int | None:
    """Which option the answer is: by its label, its text or its number from 0; None where it is none, or not just one.

    A number in the file (`by_number`) is meant as one, also where another option has its text.
    """
    bare, labels = answer.strip("().: ").casefold(), [label.casefold() for label in labels]
    if bare in labels:
        return labels.index(bare)
    number = {int(answer)} if re.fullmatch("[0-9]{1,2}", answer) and int(answer) < len(options) else set()
    same = {i for i, x in enumerate(options) if x.strip("$ ") == answer.strip("$ ")}
    lead = re.match(r"\(?([A-Za-z])\s*[).:]", answer)  # "A) 5"
    lead = {i for i, label in enumerate(labels) if lead and label == lead[1].casefold()}
    indices = number if by_number and number else (same | number or lead)
    return indices.pop() if len(indices) == 1 else None


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def text(value: Any) -> str:
    """Text of a column: numbers as written, of messages what the user says, of several values all of them."""
    if isinstance(value, dict):
        parts = ("value", "content", "ground_truth")
        return text(next((value[k] for k in parts if value.get(k) is not None), None))
    if isinstance(value, list | tuple):
        if any(isinstance(x, dict) and "role" in x for x in value):
            value = [x.get("content") for x in value if isinstance(x, dict) and x.get("role") == "user"][-1:]
        return ", ".join(text(x).strip().strip("$") for x in value)
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None or value != value else str(value)
