"""Finds the final answer of a completion: its last box, with what belongs to it. Linear in the text's length."""

import re

NEAR = 200  # characters around a box that may belong to it

_BOX = r"\\?\\(?:boxed|fbox)(?![a-zA-Z])[ \t]*"
_BARE = (
    r"(?:[-+]?\d+(?:[.,]\d+)*|[a-zA-Z](?![a-zA-Z])|\\(?:pi|infty|emptyset|frac\s*\d\s*\d"
    r"|frac\{[^{}]{0,99}\}\{[^{}]{0,99}\}|sqrt\{[^{}]{0,99}\})(?![a-zA-Z]))"
)
_TOKENS = re.compile(rf"(?P<box>{_BOX}\{{)|{_BOX}(?P<bare>{_BARE})|{_BOX}(?P<cut>\Z)|\\.|[{{}}]", re.DOTALL)
_LABEL = r"[a-zA-Z](?:_\{?\w{1,9}\}?)?'*(?:\([a-z]\))?\s*(?:=|\\in|\\approx)\s*"
_BETWEEN = re.compile(
    r"(?:\s*(?:\\(?:text|mathrm)\s*\{(?!\s*,?\s*(?:and|or)\b)[^{}]*\}|\^\{?\\circ\}?))?"
    r"(?:\s[a-z]{2,12}(?=\s+(?:and|or)\b))?"
    r"(?:[\s$&.]|\\q?quad|\\[,;! ()\[\]]|(,|;|\band\b|\bor\b|\\text\s*\{\s*,?\s*(?:and|or)\s*\}))+"
    rf"(?:(?:{_LABEL})|[$\s]|\\[(\[])*-?"
)
_MATH = re.compile(
    r"\\[()\[\]]|\\\$|\$\$?|\\(?:begin|end)\{(?:align|equation|gather|multline|eqnarray)\*?\}|\n[ \t]*\n"
)
_STOP = re.compile(
    r"(?<!\\)[=<>≤≥≈≡,;:&\n$?]|\\\\|\\(?:le|leq|ge|geq|ne|neq|in|approx|equiv|to|sim|implies|Rightarrow|iff|Leftrightarrow|therefore"
    r"|because|quad|qquad|hspace|[()\[\]]|begin|end|pmod|bmod|mod|tag|label|blacksquare|square|checkmark)(?![a-zA-Z])(?:\{[a-z*]*\})?"
    r"|\\[()\[\]]|\.(?=\s|$|\$|\\)|(?<![\d}\])!])!"
)
_PLAIN = re.compile(
    r"(?:\s*(?:\\?%|\^\{?\\?circ\}?|°|\\degree|\\(?:times|cdot|pi|sqrt|frac|dfrac)(?![a-z])(?:\s*10)?|\^|\{[^{}]*\}|[²³]"
    r"|(?:\\[,; ])?\s*\\(?:text|mathrm)\s*\{(?!\s*(?:and|or|for|if|is|so)\b)[^{}]*\})"
    r"|[a-zA-Z](?![a-zA-Z])|(?<=[\^a-zA-Z])\d+|(?<=[+/*])\d+|[+*/-](?=[\da-zA-Z\\]))+"
)
_DECORATION = re.compile(
    r"\\(?:color|textcolor)\s*\{[^{}]*\}"
    r"|\\(?:large|Large|LARGE|huge|Huge|displaystyle|left|right|,|;|!|:| )(?![a-zA-Z])\.?"
)


def _find(text: str) -> tuple[list[tuple[int, int, int, int]], bool]:
    """Boxes by where they begin (begin, begin of content, end of content, end), and whether a cut-off one follows."""
    first = min((i for i in (text.find(r"\boxed"), text.find(r"\fbox")) if i >= 0), default=len(text))
    opened: list[tuple[int, int] | None] = []  # None: a brace that is no box
    boxes, cut = [], -1
    for token in _TOKENS.finditer(text, first):
        if token[0] == "}":
            if opened and (box := opened.pop()):
                boxes.append((*box, token.start(), token.end()))
        elif token[0] == "{":
            opened.append(None)
        elif token["box"]:
            opened.append(token.span())
        elif token["bare"]:
            boxes.append((token.start(), *token.span("bare"), token.end()))
        elif token["cut"] is not None:
            cut = token.start()
    cut = max([cut, *(box[0] for box in opened if box)])
    boxes = sorted(box for box in boxes if not _empty(text[box[1] : box[2]]))
    return boxes, cut > (boxes[-1][0] if boxes else -1)


def _empty(content: str) -> bool:
    """Whether a box is only an echo of the instructions."""
    return not re.sub(r"\\(?:[,;:! ]|q?quad|ldots|dots|cdots|text\s*\{\s*\}|square)|[\s.{}_?…$~]", "", content)


def boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}`, `\boxed 5` or `\fbox{...}`, of nested ones the inner.

    None without one, and where the last one is not finished. Escaped braces do not count, nor do empty boxes.
    """
    boxes, cut = _find(text)
    return None if cut or not boxes else text[boxes[-1][1] : boxes[-1][2]]


def final_answer(completion: str) -> str | None:
    """The last box with the expression that it is part of, and boxes before it that a comma, 'and' or 'or' joins."""
    boxes, cut = _find(completion)
    if cut or not boxes:
        return None
    chain = [boxes[-1]]
    for box, following in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        near = following[0] - box[3] < 100 and box[3] <= following[0]
        between = near and _BETWEEN.fullmatch(completion, box[3], following[0])
        if not between or not between[1]:
            break
        chain.append(box)
    if len(chain) > 1:
        return ", ".join(
            dict.fromkeys(_sign(completion, box) + completion[box[1] : box[2]].strip() for box in reversed(chain))
        )
    return _extended(completion, boxes[-1])


def gold_answer(text: str) -> str:
    """What a gold answer says: its box, if it has one."""
    return (final_answer(text) or text.rpartition(r"\boxed{")[2]) if r"\boxed" in text else text


def _extended(text: str, box: tuple[int, int, int, int]) -> str:
    """A box with what stands around it in the same expression."""
    begin, a, b, end = box
    content = text[a:b].strip()
    simple = not re.search(
        r"[=<>,;]|\\(?:le|ge|leq|geq|in|cup|text|pm|mathrm)(?![a-z])|[a-zA-Z]{2} [a-zA-Z]{2}",
        content.replace("{,}", ""),
    )
    if not simple:
        return content
    left, right = text[max(0, begin - NEAR) : begin], text[end : end + NEAR]
    if _in_math(text, begin):
        stops = list(_STOP.finditer(left))
        left = left[stops[-1].end() :] if stops else left if len(left) < NEAR else ""
        stop = _STOP.search(right)
        relation = stop and re.match(r"[=<>]|\\(?:le|ge|ne|approx|equiv)", stop[0])
        right = right[: stop.start()] if stop else right if len(right) < NEAR else ""
        left, right = (_DECORATION.sub(" ", part).strip() for part in (left, right))
        left = re.sub(r"\\boxed\s*\{([^{}]*)\}", r"{(\1)}", left)
        left = re.sub(r"^.*\\(?:text|mathrm|textbf)\s*\{[^{}]*\}", "", left).strip()
        if relation and (left or right):
            left = right = ""
    else:
        left = _sign(text, box)
        match = _PLAIN.match(right)
        right = match[0].strip() if match else ""
        right = re.sub(r"\s*(?:[\^+*/-]|\\(?:times|cdot|frac|dfrac|sqrt|,|;))+$", "", right)
    for part in (left, right):
        words = re.sub(r"\\(?:text|mathrm)\s*\{[^{}]*\}|\\[a-zA-Z]+", " ", part)
        if re.search(r"[a-zA-Z]{3,}|[a-zA-Z] [a-zA-Z]+ [a-zA-Z]", words):
            left = right = ""
    whole = left + right
    if not whole or whole.count("{") != whole.count("}") or whole.count("(") != whole.count(")") or "\\boxed" in whole:
        return content
    atom = re.fullmatch(r"[\w.]+|\\frac\{[^{}]*\}\{[^{}]*\}", content) and not (left and left[-1].isdigit())
    inner = (
        content
        if atom
        or not left
        and right.startswith("\\text")
        or not (left or re.match(r"[\^!]", right))
        and not re.search(r"[-+]", content)
        else f"{{({content})}}"
    )
    if left.endswith(("\\", "_", "^")) and not inner.startswith("{"):
        inner = f"{{{inner}}}"
    joint = " " if right[:1].isalnum() and content[-1:].isalpha() else ""
    return f"{left}{inner}{joint}{right}".strip()


def _sign(text: str, box: tuple[int, int, int, int]) -> str:
    return "-" if re.search(r"(?:^|[\s(=$])[-−]$", text[max(0, box[0] - 2) : box[0]]) else ""


def _in_math(text: str, begin: int) -> bool:
    """Whether a box stands in a formula."""
    inside = False
    for match in _MATH.finditer(text, 0, begin):
        mark = match[0]
        if mark == r"\$":
            continue
        if mark[0] == "\n":
            inside = False
        elif mark[0] == "$":
            inside = not inside
        else:
            inside = mark in (r"\(", r"\[") or mark.startswith(r"\begin")
    return inside
