"""Finds the final answer of a completion that may have no box. Linear in the text's length."""

import re

from dots_jax.reward import boxes

_MARK = re.compile(r"(?<!#)####(?!#)|\banswer[\s*_]{0,9}(?:is\b|:)", re.IGNORECASE)
_LINE = re.compile(r"[\s*_:]*([^\n]*)")
_SENTENCE = re.compile(r"([^\d\n]*\d.*?)\.\s")  # that holds a number: `42. I hope it is correct.`
_FORMULA = re.compile(r"\$\$?([^$]*)\$\$?|\\\((.*)\\\)|\\\[(.*)\\\]")  # and nothing else
_WHOLE = r"(?:\d{1,3}(?:(?:\\!)?(?:,|\{,\}|\\,)(?:\\!)?\d{3})+(?!\d)|\d+)"
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3}")
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)\]}$.%])[-−])?(?:(?:\\?\$|[£€¥])(?P<after>[-−])?)?(?<![\w^.])(?<!\^\{)"
    rf"(?P<value>(?:\d+ ?)?\\[dtc]?frac(?:\{{-?\d+\}}\{{\d+\}}|\d\d)|(?:\d+ )?\d+/\d+(?![\d/])"
    rf"|(?:{_WHOLE}?\.\d+|{_WHOLE})(?:[eE][-+]?\d{{1,3}}(?!\w))?)"
    r"(?P<percent> ?(?:\\?%|percent\b))?",
    re.ASCII,
)


def find_answer(completion: str, where: str = "box") -> str | None:
    """The final answer of a completion; None where it has none.

    `where` it may stand: "box": in a box alone, as `boxes.final_answer`; "marked": where the text has no box, behind
    its last `####` or "answer is"; "last": where it has neither, its last number, and behind a mark the last number of
    a sentence or an equation in words. A box that is cut off is one.
    """
    answer = boxes.final_answer(completion)
    if where == "box" or answer is not None or boxes.find(completion)[1]:
        return answer
    answer = _marked(completion)
    if where == "last" and (answer is None or _says(answer)):
        return _last_number(completion if answer is None else answer) or answer
    return answer


def _says(answer: str) -> bool:
    """Whether words come before its first digit, or stand in it beside an equation."""
    head = re.match(r"\D*", answer)[0]
    return bool(_WORD.search(answer if "=" in answer else head)) and head != answer


def _marked(text: str) -> str | None:
    """What the last mark is followed by, to the end of the line, or of its first sentence with a number."""
    *_, last = [None, *_MARK.finditer(text)]
    if last is None:
        return None
    line = _LINE.match(text, last.end())[1].strip()
    line = sentence[1] if (sentence := _SENTENCE.match(line)) else line
    line = line.rstrip(" \t*_.")
    if formula := _FORMULA.fullmatch(line):
        line = next(filter(None, formula.groups()), "").strip()
    return line or None


def _last_number(text: str) -> str | None:
    *_, last = [None, *_NUMBER.finditer(text)]
    if last is None:
        return None
    return ("-" if last["sign"] or last["after"] else "") + last["value"] + (r"\%" if last["percent"] else "")
