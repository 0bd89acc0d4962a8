"""Finds the final answer of a completion: its last box, with what belongs to it. Linear in the text's length."""

import re

from dots_jax.reward import units

NEAR = 200  # characters around a box that may belong to it

_BOX = r"\\?\\(?:boxed|fbox|framebox)(?![a-zA-Z])[ \t]*"
_BARE = (
    r"(?:[-+]?\d+(?:[.,]\d+)*|[a-zA-Z](?![a-zA-Z])|\\(?:pi|infty|emptyset|frac\s*\d\s*\d"
    r"|frac\{[^{}]{0,99}\}\{[^{}]{0,99}\}|sqrt\{[^{}]{0,99}\})(?![a-zA-Z]))"
)
_TOKENS = re.compile(
    rf"(?P<box>{_BOX}\{{)|{_BOX}(?P<bare>{_BARE})|{_BOX}\$(?P<dollars>[^$\n]{{1,99}})\$|{_BOX}(?P<cut>\Z)|\\.|[{{}}]",
    re.DOTALL,
)
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
    r"|[a-zA-Z](?![a-zA-Z])|(?<=[\^a-zA-Z])\d+|(?<=[+/*])\d+|[+*/-](?=[\da-zA-Z\\])|\s?×\s?10|_\{?\d+\}?)+"
)
_DECORATION = re.compile(
    r"\\(?:color|textcolor)\s*\{[^{}]*\}"
    r"|\\(?:large|Large|LARGE|huge|Huge|displaystyle|left|right|,|;|!|:| )(?![a-zA-Z])\.?"
)


_TEXT = re.compile(r"\\(?:text|textnormal|mathrm)\s*\{[^{}]*\}")
_ONLY = re.compile(r"[\s$)\]\\]*is (?:the|our|my) (?:final |correct |only |right )*(?:answer|solution)")
_ORDER = re.compile(r"[<>≤≥≠]|\\(?:lt|gt|le|leq|ge|geq|ne|neq|leqslant|geqslant)(?![a-zA-Z])")
_SIMPLE = re.compile(
    r"(?:[-+*/^_.,;|\d\s()\[\]{}]|\\[{},;! ]|\\(?:frac|dfrac|sqrt|pi|infty|left|right|boxed"
    r"|cup|cap|setminus)(?![a-zA-Z])|[a-zA-Z](?![a-zA-Z]))*"
)
_AFTER = re.compile(
    r"(?:\s*(?:\$|\\\)))?[ ~]?(?:\\?(?P<percent>%)|(?P<scale>(?:thousand|million|billion|trillion)(?![a-zA-Z]))"
    r"|(?P<unit>[a-zA-Z]{2,}(?:/[a-z]+)?(?:\^\d|[²³])?)(?![\w/]))"
)
_BEFORE = re.compile(r"(?<![\w.,)\]\\/])(\d+(?:\.\d+)?[/*]?|\\sqrt\s*\{|\\[lr]?vert|\|)\Z")


def find(text: str) -> tuple[list[tuple[int, int, int, int]], bool]:
    """Boxes by where they begin (begin, begin of content, end of content, end), and whether a cut-off one follows."""
    first = min((i for i in map(text.find, (r"\boxed", r"\fbox", r"\framebox")) if i >= 0), default=len(text))
    opened: list[tuple[int, int] | None] = []  # None: a brace that is no box
    boxes, cut = [], -1
    for token in _TOKENS.finditer(text, max(0, first - 1)):
        if token[0] == "}":
            if opened and (box := opened.pop()):
                boxes.append((*box, token.start(), token.end()))
        elif token[0] == "{":
            opened.append(None)
        elif token.lastgroup == "box":
            opened.append(token.span())
        elif token.lastgroup == "cut":
            cut = token.start()
        elif token.lastgroup:
            boxes.append((token.start(), *token.span(token.lastgroup), token.end()))
    cut = max([cut, *(box[0] for box in opened if box)])
    boxes = sorted(box for box in boxes if not _empty(text[box[1] : box[2]]))
    return boxes, cut > (boxes[-1][0] if boxes else -1)


def _empty(content: str) -> bool:
    """Whether a box is only an echo of the instructions."""
    if re.fullmatch(r"(?i)\s*(?:\\text\s*\{)?\s*(?:(?:your|the|my|final) )+answer(?: here)?\s*\}?\s*", content):
        return True
    return not re.sub(r"\\(?:[,;:! ]|q?quad|ldots|dots|cdots|text\s*\{\s*\}|square)|[\s.{}_?…$~]", "", content)


def last_answer(completion: str) -> str:
    """What stands between the last <answer> tags, else in the last box, else in the last line; "": a box is cut off."""
    end = completion.rfind("</answer>")
    begin = completion.rfind("<answer>", 0, max(end, 0))
    if begin >= 0:
        return completion[begin + len("<answer>") : end].strip()
    boxes, cut = find(completion)
    if boxes or cut:
        return "" if cut else completion[boxes[-1][1] : boxes[-1][2]].strip()
    return completion.rstrip().rpartition("\n")[2].strip()


def final_answer(completion: str) -> str | None:
    """The last box with the expression that it is part of, and boxes before it that a comma, 'and' or 'or' joins."""
    boxes, cut = find(completion)
    if cut or not boxes:
        return None
    chain = [boxes[-1]]
    if _ONLY.match(completion, boxes[-1][3]):
        boxes = boxes[-1:]
    for box, following in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        near = following[0] - box[3] < 100 and box[3] <= following[0]
        between = near and _BETWEEN.fullmatch(completion, box[3], following[0])
        if not between or not between[1]:
            break
        chain.append(box)
    if len(chain) > 1:
        contents = [_sign(completion, box) + completion[box[1] : box[2]].strip() for box in reversed(chain)]
        return ", ".join(dict.fromkeys(contents))
    return _extended(completion, boxes[-1])


def gold_answer(text: str) -> str:
    """What a gold answer says: its box, if it has one."""
    return (final_answer(text) or text.rpartition(r"\boxed{")[2]) if r"\boxed" in text else text


def _extended(text: str, box: tuple[int, int, int, int]) -> str:
    """A box with what stands around it in the same expression."""
    begin, a, b, end = box
    content = text[a:b].strip()
    relation = r"[=<>]|\\(?:le|ge|ne|leq|geq|neq|in|approx)(?![a-z])|[a-zA-Z]{2} [a-zA-Z]{2}"
    if re.search(relation, _TEXT.sub("", content)):
        return content
    if _in_math(text, begin):
        left, right = _within(text, begin, end)
    else:
        left, right = _sign(text, box), ""
        if match := _BEFORE.search(text[max(0, begin - NEAR) : begin]):
            left = match[0]
        closing = "}" if left.endswith("{") else left if left == "|" or "vert" in left else ""
        if closing:
            right = closing if text.startswith(closing, end) else ""
            left = left if right else ""
        elif match := _PLAIN.match(text, end, end + NEAR):
            right = re.sub(r"\s*(?:[\^+*/-]|\\(?:times|cdot|frac|dfrac|sqrt|,|;))+$", "", match[0].strip())
    for part in (left, right):
        words = re.sub(r"\\(?:text|mathrm)\s*\{[^{}]*\}|\\[a-zA-Z]+", " ", part)
        if re.search(r"[a-zA-Z]{3,}|[a-zA-Z] [a-zA-Z]+ [a-zA-Z]", words):
            left = right = ""
    if not right and (match := _AFTER.match(text, end)):
        word = match["unit"] or ""
        known = word in units.UNITS and word not in units.DOUBTFUL | units.NEVER | {"at", "cd", "as"}
        if match["percent"] or match["scale"] or (known and not re.search("[a-zA-Z]{2}", content)):
            right = r"\%" if match["percent"] else rf"\text{{ {match['scale'] or word}}}"
    whole = left + right
    pairs = (("{", "}"), ("([", ")]"))  # [0, 1) is balanced
    unbalanced = any(sum(map(whole.count, opening)) != sum(map(whole.count, closing)) for opening, closing in pairs)
    if not whole or unbalanced or r"\boxed" in whole:
        return content
    atom = re.fullmatch(r"[\w.]+|\\frac\{[^{}]*\}\{[^{}]*\}|[(\[][^()\[\]]*[)\]]", content)
    sum_or_list = re.search(r"[-+,;]|\\(?:cup|pm|text|mathrm)(?![a-z])", content)
    listed = re.search(r"(?:[,:({\[]|\\cup|\\cap|[<>]|\\[lg]eq?|\\neq?)\s*$", left)
    listed = listed or re.match(r"[,:]|\\cup|\\cap|\\setminus", right)
    alone = atom and not left[-1:].isdigit() and not (sum_or_list and right.startswith("^"))
    followed = not left and (right.startswith((r"\text", r"\%")) or not (re.match(r"[\^!]", right) or sum_or_list))
    inner = content if alone or listed or followed else f"{{({content})}}"
    if left.endswith(("\\", "_", "^")) and not inner.startswith("{"):
        inner = f"{{{inner}}}"
    joint = " " if right[:1].isalnum() and content[-1:].isalpha() else ""
    return f"{left}{inner}{joint}{right}".strip()


def _within(text: str, begin: int, end: int) -> tuple[str, str]:
    """What stands before and after a box in its formula, up to signs of equality, sentences and words."""
    left, right = text[max(0, begin - NEAR) : begin], text[end : end + NEAR]
    stops = [
        m
        for m in _STOP.finditer(left)
        if m[0] not in (",", ";", ":") or not _SIMPLE.fullmatch(left[m.start() :].replace(":", ""))  # a list goes on
    ]
    start = stops[-1] if stops else None
    if start and _ORDER.fullmatch(start[0]):  # x > 3
        subject = left[stops[-2].end() if len(stops) > 1 else 0 : start.start()]
        if re.search("[a-zA-Z]", subject) and (len(stops) > 1 or len(left) < NEAR):
            start = stops[-2] if len(stops) > 1 else None
            stops = stops[:-1]
    left = left[start.end() :] if start else left if len(left) < NEAR else ""
    ends = list(_STOP.finditer(text, end, end + NEAR))
    stop = next((m for m in ends if not re.match(r"[,;:]", m[0])), None)
    first = ends[0] if ends else None
    if first and first is not stop:  # a comma: the rest of a list, to the end of the formula
        rest = text[first.start() : stop.start() if stop else end + NEAR]
        if stop and stop[0][0] in "$\\.\n" and _SIMPLE.fullmatch(rest) and re.search(r"\w", rest):
            first = stop
    relation = first and re.match(r"[=<>]|\\(?:le|ge|ne|approx|equiv)", first[0])
    right = text[end : first.start()] if first else right if len(right) < NEAR else ""
    left, right = (_DECORATION.sub(" ", part).strip() for part in (left, right))
    left = re.sub(
        r"\\boxed\s*(?:\{([^{}]*)\}|(\w))",
        lambda m: m[1] if m[1] and m[1][0] in "([" else f"{{({m[1] or m[2]})}}",
        left,
    )
    left = re.sub(r"^.*\\(?:text|mathrm|textbf)\s*\{[^{}]*\}", "", left).strip()
    return ("", "") if relation and (left or right) else (left, right)


def _sign(text: str, box: tuple[int, int, int, int]) -> str:
    return "-" if re.search(r"(?:^|[\s(=$])[-−]$|=\s?[-−]\s?$", text[max(0, box[0] - 4) : box[0]]) else ""


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
