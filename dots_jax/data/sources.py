"""Where real questions come from: local files and folders of them, or datasets of the Hugging Face hub."""

import contextlib
import csv
import gzip
import io
import itertools
import logging
import os
import re
import zlib
from typing import NamedTuple

from dots_jax.core.errors import UserError, first_line
from dots_jax.core.files import parse
from dots_jax.data import columns

TABLES = (".jsonl", ".json", ".csv", ".tsv")
SUFFIXES = (".parquet", *TABLES, *(suffix + ".gz" for suffix in TABLES))
HUB = re.compile(r"[\w.-]+/[\w.-]+(:[^:]+){1,2}")


class Source(NamedTuple):
    """A named pool or evaluation set."""

    files: tuple[str, ...]  # below the root, there or in train/ or eval/, without suffix; the first that is there
    hub: str  # dataset[:configuration]:split; "": local only
    size: int  # questions there
    label: str = ""  # column of the external difficulty; "-" before it: larger is easier
    levels: tuple[int, ...] = ()  # that are taken, of the column `level`; (): all


_DEEPSCALER = "agentica-org/DeepScaleR-Preview-Dataset:train"
_ORZ = "Open-Reasoner-Zero/orz_math_57k_collection:train"
POOLS = {
    # The test questions that are not in MATH-500 are in the hub's training split.
    "math": Source(("math",), "nlile/hendrycks-MATH-benchmark:train", 12000, "level", (3, 4, 5)),
    "deepscaler": Source(("deepscaler", "deepscaler40k"), _DEEPSCALER, 40315, "fail_rate_pct"),
    "deepscaler10k": Source(("deepscaler10k",), "", 10240, "fail_rate_pct"),  # the authors' own subset
    "orz": Source(("orz", "orz57k", "orz2k"), _ORZ, 57000, "-num_correct"),
    "gsm8k_train": Source(("gsm8k_train",), "openai/gsm8k:main:train", 7473),
    "elementary": Source(("elementary",), "", 2850),  # one- and two-step word problems, with a column `source`
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
    directory = given or os.environ.get("DOTS_DATA", "")
    if directory and not os.path.isdir(directory):
        name = "config.data.root" if given else "DOTS_DATA"
        raise UserError(f"{name}={directory} is no directory; name that of the question files, or none to use the hub")
    return directory


def names(text: str) -> list[str]:
    """Of a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def rows(name: str, named: dict[str, Source], directory: str) -> tuple[list[dict], str]:
    """The rows of a pool or set, each with "problem", "answer" and its other columns; and where they come from.

    `name` is one of `named`, a file or folder (as it stands or below `directory`), or a dataset of the hub as
    `owner/dataset[:configuration]:split`. Where `directory` has no file of a known name, the hub is asked.

    Raises UserError for whatever cannot be found, downloaded or read.
    """
    source = named.get(name)
    if source:
        path, hub = local(source, directory), source.hub
    else:
        path = next((p for p in (name, os.path.join(directory, name)) if name and os.path.exists(p)), None)
        hub = name if HUB.fullmatch(name) else ""
    if path is None and hub:
        return _hub(hub, name, directory), hub
    if path is None and source:
        raise UserError(
            f"{name} is not on the hub, and {directory or 'config.data.root'} has no {source.files[0]}.parquet; set "
            "config.data.root or DOTS_DATA to a directory with it"
        )
    if path is None and name.endswith(SUFFIXES):
        raise UserError(f"no question file {name}" + (f" here or in {directory}" if directory else ""))
    if path is None or not (os.path.isdir(path) or path.endswith(SUFFIXES)):
        choice = sorted({*named, *(["arithmetic", "countdown", "reasoning_gym:TASK"] if named is POOLS else [])})
        raise UserError(
            f"unknown questions {name!r}; choose one of: {', '.join(choice)}; or name a .parquet, .jsonl, .json or "
            ".csv file, a folder of such, or a dataset of the hub as owner/dataset[:configuration]:split"
        )
    return _mapped([(file, _read(file)) for file in _files(path)], path), path


def local(source: Source, directory: str) -> str | None:
    """The file of a source below `directory`, if there is one."""
    names = itertools.product(source.files, ("", "train", "eval"), SUFFIXES)
    paths = (os.path.join(directory, folder, stem + suffix) for stem, folder, suffix in names)
    return next((path for path in paths if directory and os.path.isfile(path)), None)


def _files(path: str) -> list[str]:
    """A file itself, of a folder its shards in sorted order. Raises UserError where these are not of one kind."""
    if not os.path.isdir(path):
        return [path]
    try:
        shards = sorted(n for n in os.listdir(path) if n.endswith(SUFFIXES) and not n.startswith((".", "_")))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if not shards:
        raise UserError(f"{path} holds no .parquet, .jsonl, .json or .csv file; name a folder with question files")
    kinds = {re.search(r"\.[a-z]+(\.gz)?$", n)[0] for n in shards}
    splits = {m[0] for n in shards if (m := re.match("train|test|val|dev", n))}
    for several, what in ((kinds, "kinds"), (splits, "splits")):
        if len(several) > 1:
            raise UserError(
                f"{path} holds files of several {what} ({', '.join(sorted(several))}); name one file, or put those "
                "of one into a folder of their own"
            )
    return [os.path.join(path, n) for n in shards]


def _read(path: str) -> list:
    """The rows of a file, as Python objects."""
    if path.endswith(".parquet"):
        return _parquet(path)
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            text = file.read().decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}; write it again as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is not a whole gzip file; copy it again") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    suffix = path.removesuffix(".gz").rpartition(".")[2]
    return _csv(text, path, "\t" if suffix == "tsv" else ",") if suffix[1:] == "sv" else _json(text, path, suffix)


def _parquet(path: str) -> list[dict]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        for i, field in enumerate(table.schema):
            if pyarrow.types.is_binary(field.type) or pyarrow.types.is_large_binary(field.type):
                with contextlib.suppress(pyarrow.ArrowInvalid):  # no text: refused where text is wanted
                    table = table.set_column(i, field.name, table.column(i).cast(pyarrow.large_string()))
        return table.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as parquet ({first_line(error)}); write or copy it again") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} holds text that is not UTF-8 ({error}); write it again as UTF-8") from error


def _json(text: str, path: str, suffix: str) -> list:
    """The rows of JSON lines, or of a JSON list."""
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if suffix == "json":
        try:
            value = parse(text)
            if isinstance(value, list):
                return value
            if not isinstance(value, dict) or not columns.is_row(value):
                raise UserError(f"{path} holds no JSON list; write a list of objects, or one object a line (.jsonl)")
        except ValueError as error:
            try:  # JSON lines under this name?
                parse(lines[0][1] if lines else "")
            except ValueError:
                raise UserError(f"{path} is not JSON ({str(error)[:100]}); mend or remove what stands there") from error
    rows = []
    for number, line in lines:
        try:
            rows.append(parse(line))
        except ValueError as error:
            raise UserError(f"{path} is not JSON (line {number}); mend or remove what stands there") from error
    return rows


def _csv(text: str, path: str, delimiter: str) -> list[dict]:
    """The rows of a table whose first line names the columns."""
    csv.field_size_limit(2**31 - 1)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, line = [], 1
    try:
        header = [name.strip() for name in next(table, [])]
        line = table.line_num + 1
        for cells in table:
            if cells and len(cells) != len(header):
                raise UserError(
                    f"line {line} of {path} has {len(cells)} cells, the first has {len(header)}; put a text with "
                    "commas, quotes or line breaks in quotes"
                )
            rows += [dict(zip(header, cells, strict=True))] if cells else []
            line = table.line_num + 1
    except csv.Error as error:
        raise UserError(f"line {line} of {path} is not CSV ({error}); mend its quotes") from error
    if len(set(header)) < len(header):
        raise UserError(f"{path} has two columns of one name ({', '.join(header)[:100]!r}); rename one")
    return rows


def _hub(source: str, name: str, directory: str) -> list[dict]:
    """The rows of `source`, dataset[:configuration]:split."""
    dataset, *part, split = source.split(":")
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"the questions {name!r} come from the Hugging Face hub: pip install datasets") from error
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries: what comes of them is said below
    try:
        datasets.disable_progress_bars()
        table = datasets.load_dataset(dataset, *part, split=split)
        # Worked solutions, several of them in a row, would fill the host's memory.
        needed = set() if {*columns.ANSWER} & {name.casefold() for name in table.column_names} else {"solution"}
        worked = [name for name in table.column_names if "solution" in name.casefold()]
        table = table.remove_columns([name for name in worked if name.casefold() not in needed])
    except Exception as error:  # dozens of kinds, from requests, the hub and pyarrow
        beside = f" ({directory} has no file of it)" if directory else ""
        raise UserError(
            f"cannot get the questions {name!r} from the Hugging Face hub, dataset {dataset}: "
            f"{first_line(error)}{beside}; go online, or set config.data.root or DOTS_DATA to a directory with the "
            "files"
        ) from error
    return _mapped([(f"dataset {dataset}", list(table))], f"dataset {dataset}")


def _mapped(parts: list[tuple[str, list]], origin: str) -> list[dict]:
    """Rows with "problem" and "answer". Raises UserError where these cannot be made out."""
    mapped = [columns.read(row, i, part) for part, rows in parts for i, row in enumerate(rows)]
    if not mapped:
        raise UserError(f"{origin} holds no rows; give a file with questions")
    return mapped
