"""Where real questions come from: local parquet and JSON files, or datasets of the Hugging Face hub."""

import logging
import os
import re
from typing import Any, NamedTuple

from dots_jax.core.errors import UserError
from dots_jax.core.files import parse

# The first of these columns that a row has; several spellings, because every publisher has one of his own.
PROBLEM = ("problem", "question", "prompt", "query", "instruction")
ANSWER = ("answer", "final_answer", "ground_truth", "expected_answer", "reward_model", "target")
SUFFIXES = (".parquet", ".jsonl", ".json")


class Source(NamedTuple):
    """A named pool or evaluation set."""

    files: tuple[str, ...]  # below the root, there or in train/ or eval/, without suffix; the first that is there
    hub: str  # dataset[:configuration]:split; "": local only
    size: int  # questions there
    label: str = ""  # column of the external difficulty; "-" before it: larger is easier
    levels: tuple[int, ...] = ()  # that are taken, of the column `level`; (): all


POOLS = {
    # The test questions that are not in MATH-500 are in the hub's training split.
    "math": Source(("math",), "nlile/hendrycks-MATH-benchmark:train", 12000, "level", (3, 4, 5)),
    "deepscaler": Source(
        ("deepscaler", "deepscaler40k"), "agentica-org/DeepScaleR-Preview-Dataset:train", 40315, "fail_rate_pct"
    ),
    "deepscaler10k": Source(("deepscaler10k",), "", 10240, "fail_rate_pct"),  # the authors' own subset
    "orz": Source(
        ("orz", "orz57k", "orz2k"), "Open-Reasoner-Zero/orz_math_57k_collection:train", 57000, "-num_correct"
    ),
    "deepmath": Source(("deepmath", "deepmath103k", "deepmath5k"), "zwhe99/DeepMath-103K:train", 103000, "difficulty"),
}
SETS = {
    "gsm8k": Source(("gsm8k",), "openai/gsm8k:main:test", 1319),
    "math500": Source(("math500",), "HuggingFaceH4/MATH-500:test", 500),
    "minerva": Source(("minerva",), "math-ai/minervamath:test", 272),
    "olympiadbench": Source(("olympiadbench",), "Hothan/OlympiadBench:OE_TO_maths_en_COMP:train", 675),
    "amc23": Source(("amc23",), "math-ai/amc23:test", 40),
    "aime24": Source(("aime24",), "HuggingFaceH4/aime_2024:train", 30),
}


def root(given: str) -> str:
    """The directory of local files: `given`, else the environment's DOTS_DATA, else "". Raises UserError."""
    found = given or os.environ.get("DOTS_DATA", "")
    if found and not os.path.isdir(found):
        whose = f"config.data.root={given}" if given else f"DOTS_DATA={found}"
        raise UserError(f"{whose} is no directory; name the one with the question files, or none to use the hub")
    return found


def names(text: str) -> list[str]:
    """Of a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def rows(name: str, known: dict[str, Source], directory: str) -> tuple[list[dict], str]:
    """The rows of a pool or set, each with "problem", "answer" and its other columns; and where they come from.

    `name` is one of `known`, a file (as it stands or below `directory`), or a dataset of the hub as
    `owner/dataset[:configuration]:split`. Where `directory` has no file of a known name, the hub is asked.

    Raises UserError for whatever cannot be found, downloaded or read.
    """
    if name in known:
        path = local(known[name], directory)
        if path is None:
            if not known[name].hub:
                raise UserError(
                    f"{name} is not on the hub, and {directory or 'config.data.root'} has no {known[name].files[0]}"
                    ".parquet; set config.data.root or DOTS_DATA to a directory with it"
                )
            return _hub(known[name].hub, name, directory), known[name].hub
    elif name.endswith(SUFFIXES):
        path = next((p for p in (name, os.path.join(directory, name)) if os.path.isfile(p)), None)
        if path is None:
            raise UserError(f"no question file {name}" + (f" here or in {directory}" if directory else ""))
    elif re.fullmatch(r"[\w.-]+/[\w.-]+(:[^:]+){1,2}", name):
        return _hub(name, name, directory), name
    else:
        choice = sorted({*known, *(["arithmetic"] if known is POOLS else [])})
        raise UserError(
            f"unknown questions {name!r}; choose one of: {', '.join(choice)}; or name a .parquet, .jsonl or .json "
            "file, or a dataset of the hub as owner/dataset[:configuration]:split"
        )
    return _mapped(_read(path), path), path


def local(source: Source, directory: str) -> str | None:
    """The file of a source below `directory`, if there is one."""
    tried = [
        os.path.join(directory, folder, stem + suffix)
        for stem in source.files
        for folder in ("", "train", "eval")
        for suffix in SUFFIXES
    ]
    return next((p for p in tried if directory and os.path.isfile(p)), None)


def _read(path: str) -> list:
    """The rows of a file, as Python objects."""
    if path.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_table(path).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"{path} cannot be read as parquet ({reason}); write or copy it again") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path} holds text that is not UTF-8 ({error}); write it again as UTF-8") from error
    try:
        with open(path, encoding="utf-8") as file:
            if path.endswith(".json"):
                found = parse(file.read())
                if not isinstance(found, list):
                    raise UserError(
                        f"{path} holds no JSON list; write a list of objects, or one object a line (.jsonl)"
                    )
                return found
            found, number = [], 0
            for line in file:
                number += 1
                if line.strip():
                    found.append(parse(line))
            return found
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}; write it again as UTF-8") from error
    except ValueError as error:
        where = f"line {number}" if path.endswith(".jsonl") else str(error)[:100]
        raise UserError(f"{path} is not JSON ({where}); mend or remove what stands there") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _hub(where: str, name: str, directory: str) -> list[dict]:
    dataset, *part, split = where.split(":")
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"the questions {name!r} come from the Hugging Face hub: pip install datasets") from error
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries: what comes of them is said below
    try:
        datasets.disable_progress_bars()
        found = datasets.load_dataset(dataset, *part, split=split)
        # Worked solutions, several of them in a row, would fill the host's memory.
        found = found.remove_columns([name for name in found.column_names if "solution" in name])
    except Exception as error:  # dozens of kinds, from requests, the hub and pyarrow
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
        beside = f" ({directory} has no file of it)" if directory else ""
        raise UserError(
            f"cannot get the questions {name!r} from the Hugging Face hub, dataset {dataset}: {reason}{beside}; go "
            "online, or set config.data.root or DOTS_DATA to a directory with the files"
        ) from error
    return _mapped(list(found), f"dataset {dataset}")


def _mapped(found: list, origin: str) -> list[dict]:
    """Rows with "problem" and "answer". Raises UserError where these columns cannot be made out."""
    if not found:
        raise UserError(f"{origin} holds no rows; give a file with questions")
    return [_row(row, i, origin) for i, row in enumerate(found)]


def _row(row: Any, number: int, origin: str) -> dict:
    if isinstance(row, dict) and {"0", "1"} <= row.keys():  # a list, as some readers hand it on
        row = row | {"problem": row["0"], "answer": row["1"]}
    if isinstance(row, list) and len(row) == 2:  # a conversation: the question, and its answer
        row = {"problem": row[0], "answer": row[1]}
    if not isinstance(row, dict):
        raise UserError(f"row {number} of {origin} is {type(row).__name__}, not an object with a problem and an answer")
    values = []
    for wanted in (PROBLEM, ANSWER):
        column = next((name for name in wanted if row.get(name) is not None), None)
        try:
            text = "" if column is None else _text(row[column])
        except RecursionError:
            raise UserError(
                f"row {number} of {origin}: the {wanted[0]} is nested too deeply; mend or remove it"
            ) from None
        if column is None and not any(name in row for name in wanted):
            raise UserError(
                f"{origin} lacks a column {wanted[0]!r}: row {number} has {', '.join(map(str, row)) or 'nothing'}; "
                f"call it one of {', '.join(wanted)}"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"row {number} of {origin}: the {wanted[0]} is not UTF-8 text; mend or remove it"
            ) from error
        values.append(text.strip())
    problem, answer = values
    if "####" in answer:  # GSM8K: the working, and the answer after it
        answer = answer.rpartition("####")[2].strip()
    return row | {"problem": problem, "answer": answer}


def _text(value: Any) -> str:
    """Text of a column: numbers as written, of messages what the user says, of several values all of them."""
    if isinstance(value, dict):
        known = ("value", "content", "ground_truth")
        return _text(next((value[k] for k in known if value.get(k) is not None), None))
    if isinstance(value, list | tuple):
        if any(isinstance(x, dict) and "role" in x for x in value):
            value = [x.get("content") for x in value if isinstance(x, dict) and x.get("role") == "user"][-1:]
        return ", ".join(_text(x).strip().strip("$") for x in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None or value != value else str(value)
