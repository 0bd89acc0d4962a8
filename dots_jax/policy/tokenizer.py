"""Tokenizers in Hugging Face layout: prompts to ids, ids to text, and the ids that end a completion."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dots_jax.core.errors import UserError, first_line
from dots_jax.core.files import read_json
from dots_jax.core.rules import shortened, whole

END = "<|endoftext|>"  # end and padding token of a character tokenizer, as in Qwen
ENDS = (END, "<|im_end|>")  # base and Math models end on the first, chat models on the second; all know both
_MEND = "set the config's field `instruction_in` to user"


def load(directory: str | os.PathLike):
    """The tokenizer in `directory`; never asks the network. Raises UserError if there is none."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that torch is missing: it is not needed
    from transformers import AutoTokenizer, logging  # slow to import

    logging.set_verbosity_error()  # what it warns of is checked here
    directory = Path(directory)
    if not any((directory / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise UserError(
            f"no tokenizer in {directory}: neither tokenizer.json nor vocab.json; give a Hugging Face model directory"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        _ids(tokenizer, ["1"])  # some of what its files say is only read now
        return tokenizer
    except Exception as error:  # transformers and tokenizers raise many kinds for a damaged file
        raise UserError(
            f"cannot read the tokenizer in {directory}: {first_line(error)}; copy its files again"
        ) from error


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    if not texts:  # transformers rejects an empty batch
        return []
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


def prompts(tokenizer: Any, texts: Sequence[str], system: str = "", instruction_in: str = "system") -> list[str]:
    """What the policy sees of each question: the tokenizer's chat template around it and the instruction `system`.

    `instruction_in` is a value of the config's field: "system", without a template where there is no instruction;
    "user", on a line after the question; "only_user", likewise, and the template's own system turn is left out.
    Raises UserError where there is no template, or it fails or has no such turn.
    """
    if instruction_in == "system" and not system:
        return list(texts)
    if not tokenizer.chat_template:
        raise UserError(
            "an instruction is set, or its turn, but the policy's tokenizer has no chat template (chat_template.jinja "
            "or in tokenizer_config.json); give another policy, or the config's fields `system` as nothing and "
            "`instruction_in` as system"
        )
    turns = [("system", system)] if instruction_in == "system" else []
    after = f"\n{system}" if system and not turns else ""
    chats = [_chat(tokenizer, *turns, ("user", text + after)) for text in texts]
    if turns and not all(system.strip() in chat for chat in chats):
        raise UserError(f"the policy's chat template leaves the system turn out; {_MEND}")
    if instruction_in != "only_user":
        return chats
    start, own = _before_user(tokenizer)
    return [start + chat.removeprefix(own) for chat in chats]


def _chat(tokenizer: Any, *turns: tuple[str, str], generate: bool = True) -> str:
    """The turns, a role and a text each, in the tokenizer's chat template, to be gone on with by the policy."""
    turns = [{"role": role, "content": text} for role, text in turns]
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generate)
    except Exception as error:  # whatever the template does
        raise UserError(
            f"the policy's chat template fails: {first_line(error)}; mend it or, where it knows no system turn, {_MEND}"
        ) from error


def _before_user(tokenizer: Any) -> tuple[str, str]:
    """What a prompt starts with, and all that the chat template puts before the first user's turn."""
    asked, answered = "q7x", "a7x"
    turns = [("user", asked), ("assistant", answered), ("user", asked)]
    first, second, third = (_chat(tokenizer, *turns[:n], generate=False) for n in (1, 2, 3))
    end = second.rpartition(answered)[2]  # of the assistant's turn; how it begins depends on what follows
    opening = third.rpartition(answered)[2].partition(asked)[0].removeprefix(end)
    before = first.partition(asked)[0]
    if not before.endswith(opening):
        raise UserError(f"the policy's chat template mixes its turns; {_MEND}")
    own, start = before.removesuffix(opening), tokenizer.bos_token or ""
    return start if own.startswith(start) else "", own


def count(
    tokenizer: Any, texts: Sequence[str], system: str = "", most: int | None = None, instruction_in: str = "system"
) -> list[int]:
    """Tokens of each question's prompt; of one that is far too long for `most` tokens, more than that."""
    texts = prompts(tokenizer, texts, system, instruction_in)
    long = [most is not None and len(text) > _room(tokenizer, most) for text in texts]
    rows = iter(_ids(tokenizer, [text for text, skip in zip(texts, long, strict=True) if not skip]))
    return [most + 1 if skip else len(next(rows)) for skip in long]


def _room(tokenizer: Any, tokens: int) -> int:
    """Characters that no text of so many tokens exceeds; to tokenize one of millions takes minutes."""
    if not hasattr(tokenizer, "longest_token"):
        tokenizer.longest_token = max(map(len, tokenizer.get_vocab()), default=1)
    return 4 * tokens * tokenizer.longest_token  # a normalizer makes one character of four at most


def encode(
    tokenizer: Any, texts: Sequence[str], max_tokens: int, system: str = "", instruction_in: str = "system"
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of `prompts`, int32 [N, S] right-padded with 0, and lengths, int32 [N]; S is the longest prompt.

    Raises UserError for a text that is empty, longer than `max_tokens`, or not in the tokenizer's alphabet.
    """
    texts = prompts(tokenizer, texts, system, instruction_in)
    for text in texts:
        if len(text) > _room(tokenizer, max_tokens):
            raise UserError(
                f"question {shortened(text)} has {len(text):,} characters, too many for the {max_tokens} tokens that "
                "there is room for; remove the question"
            )
    rows = _ids(tokenizer, texts)
    characters = sorted(set("".join(texts)))  # one the vocabulary cannot spell is dropped without a word
    lacking = {c for c, row in zip(characters, _ids(tokenizer, characters), strict=True) if not row}
    for text, row in zip(texts, rows, strict=True):
        if not lacking.isdisjoint(text):
            raise UserError(
                f"question {shortened(text)} has {min(lacking & set(text))!r}, which the policy's tokenizer lacks; "
                "use another policy or pool"
            )
        if not row:
            raise UserError(f"question {shortened(text)} has no tokens; remove it from the pool")
        if len(row) > max_tokens:
            raise UserError(
                f"question {shortened(text)} has {len(row)} tokens, but config.data.max_prompt_tokens is "
                f"{max_tokens}; raise the limit or remove the question"
            )
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.zeros((len(rows), lengths.max(initial=0)), np.int32)
    for row, out in zip(rows, tokens, strict=True):
        out[: len(row)] = row
    return tokens, lengths


def decode(tokenizer: Any, tokens: jax.Array | np.ndarray, lengths: jax.Array | np.ndarray) -> list[str]:
    """Texts of the first `lengths` [R] ids of each row of `tokens` [R, T], without special tokens (the end)."""
    tokens, lengths = np.asarray(tokens), np.asarray(lengths)
    rows = [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]
    return tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False) if rows else []


def lengths(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """How many characters of `decode`'s text each id adds; one that several ids spell comes with the last of them."""

    def text(start: int, end: int) -> str:
        return tokenizer.decode(ids[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)

    found, start, done, before = [], 0, 0, 0  # `before` characters are ids[start:done], which the next ones follow
    for end in range(1, len(ids) + 1):
        here = text(start, end)
        if here.endswith("\ufffd") and end - done < 4 and end < len(ids):  # no whole character yet; it has four bytes
            found.append(0)
            continue
        found.append(max(0, len(here) - before))
        start, done = done, end
        before = len(text(start, done))
    return found


def stop_ids(directory: str | os.PathLike, tokenizer: Any) -> tuple[int, ...]:
    """Every id that ends a completion, sorted.

    They are eos_token_id of generation_config.json and of config.json, the tokenizer's own, and `ENDS` where it has
    them: a base model in a chat template may end on either.

    Raises UserError if there is none, if a file is not JSON, or names an id that the tokenizer lacks.
    """
    added = tokenizer.get_added_vocab()
    ids = {tokenizer.eos_token_id, *(added[end] for end in ENDS if end in added)}
    for name in ("generation_config.json", "config.json"):
        path = Path(directory) / name
        named = read_json(path).get("eos_token_id") if path.is_file() else None
        named = named if isinstance(named, list) else [named]
        if any(x is not None and whole(0, len(tokenizer) - 1)(x) for x in named):
            raise UserError(
                f"eos_token_id in {path} is {str(named)[:60]}, but the tokenizer's ids are whole numbers from 0 to "
                f"{len(tokenizer) - 1}; mend or remove it"
            )
        ids.update(named)
    ids.discard(None)
    if not ids:
        raise UserError(f"no end token in {directory}: set eos_token_id in its generation_config.json")
    return tuple(sorted(ids))


def build_characters(alphabet: str, directory: str | os.PathLike):
    """Writes a tokenizer with one id per character of `alphabet`, from 1; id 0 is the end and padding token.

    Returns it. The files load with AutoTokenizer, beside a Qwen2 config.json too. Raises ValueError unless the
    characters are distinct visible ASCII.
    """
    # AutoTokenizer builds a Qwen2Tokenizer for model_type qwen2 whatever tokenizer_class says, so it is one: byte-level
    # BPE without merges.
    from transformers import Qwen2Tokenizer

    if len(set(alphabet)) != len(alphabet) or not all("!" <= character <= "~" for character in alphabet):
        raise ValueError(f"alphabet {alphabet!r} must be distinct visible ASCII characters")
    vocabulary = {END: 0} | {character: i for i, character in enumerate(alphabet, start=1)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], eos_token=END, pad_token=END, unk_token=END)
    tokenizer.save_pretrained(directory)
    ends = {"eos_token_id": 0, "pad_token_id": 0}
    (Path(directory) / "generation_config.json").write_text(json.dumps(ends, indent=2) + "\n", encoding="utf-8")
    return tokenizer
