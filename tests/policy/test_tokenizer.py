import json
import os
import types
from pathlib import Path

import numpy as np
import pytest

from dots_jax.core.errors import UserError
from dots_jax.data import arithmetic
from dots_jax.policy import tokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Tokenizer files beside the config.json of a Qwen2 policy, as the quickstart has them."""
    directory = tmp_path_factory.mktemp("policy")
    tokenizer.build_characters(arithmetic.ALPHABET, directory)
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "eos_token_id": 0}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="module")
def characters(directory):
    return tokenizer.load(directory)


def test_characters(characters):
    alphabet = arithmetic.ALPHABET
    assert len(characters) == len(alphabet) + 1 < 64
    assert characters.eos_token_id == characters.pad_token_id == 0
    assert characters.eos_token == "<|endoftext|>"
    tokens, lengths = tokenizer.encode(characters, [alphabet], 64)
    assert tokens.tolist() == [list(range(1, len(alphabet) + 1))]
    assert tokenizer.decode(characters, tokens, lengths) == [alphabet]


def test_every_kind_of_question_round_trips(characters):
    pool, _ = arithmetic.make(660, 0, seed=0)
    tokens, lengths = tokenizer.encode(characters, pool.texts, arithmetic.MAX_PROMPT)
    assert tokens.dtype == lengths.dtype == np.int32
    assert tokens.shape == (660, max(map(len, pool.texts)))
    assert lengths.tolist() == [len(text) for text in pool.texts]
    assert not tokens[np.arange(tokens.shape[1]) >= lengths[:, None]].any()
    assert tokenizer.decode(characters, tokens, lengths) == list(pool.texts)
    _, completions, *_ = arithmetic.demonstrations(np.random.default_rng(0), 300, [1] * arithmetic.LEVELS)
    tokens, lengths = tokenizer.encode(characters, completions, arithmetic.MAX_COMPLETION)
    assert tokenizer.decode(characters, tokens, lengths) == completions


def test_loads_alike_without_config(directory, characters, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    alone = tokenizer.load(tmp_path)
    texts = ["w237+682=", "d523-7=", "7+2=9,3+8=11,2+6+1=9>919"]
    np.testing.assert_array_equal(tokenizer.encode(alone, texts, 40)[0], tokenizer.encode(characters, texts, 40)[0])


def test_saved_again_is_the_same(characters, directory, tmp_path):
    characters.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((directory / "config.json").read_bytes())
    tokens, lengths = tokenizer.encode(tokenizer.load(tmp_path), ["a38+24="], 24)
    np.testing.assert_array_equal(tokens, tokenizer.encode(characters, ["a38+24="], 24)[0])


def test_decode_stops_at_the_length_and_drops_the_end(characters):
    tokens = np.array([[2, 3, 0, 9], [4, 5, 6, 7]])
    assert tokenizer.decode(characters, tokens, np.array([3, 2])) == ["12", "34"]
    assert tokenizer.decode(characters, tokens, np.array([1, 4])) == ["1", "3456"]
    assert tokenizer.decode(characters, tokens[:0], np.array([], int)) == []


def test_encode_nothing(characters):
    tokens, lengths = tokenizer.encode(characters, [], 24)
    assert tokens.shape == (0, 0)
    assert lengths.shape == (0,)


def test_too_long(characters):
    long = "s" + "1" * 100 + "="
    assert tokenizer.encode(characters, ["s1=", long], 102)[0].shape == (2, 102)
    with pytest.raises(UserError, match="has 102 tokens.*max_prompt_tokens is 101") as error:
        tokenizer.encode(characters, ["s1=", long], 101)
    assert "'s11111" in str(error.value)
    assert len(str(error.value)) < 200


def test_empty(characters):
    with pytest.raises(UserError, match="question '' has no tokens"):
        tokenizer.encode(characters, ["s1=", ""], 24)


@pytest.mark.parametrize("text", ["a1+Z=", "a1 +2=", "a1+2=\n", "é"])
def test_foreign_character(characters, text):
    with pytest.raises(UserError, match="lacks"):
        tokenizer.encode(characters, ["s1=", text], 24)


TURN = "<{{ m.role }}>{{ m.content | trim }}</{{ m.role }}>"
LOOP = "{% for m in messages %}" + TURN + "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
OWN = "{% if messages[0].role != 'system' %}<system>Be kind.</system>{% endif %}"
THINKS = "{% for m in messages %}{% if loop.last and m.role == 'assistant' %}<think>{% endif %}" + TURN
THINKS += "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.fixture
def chat(directory):
    def chat(template, *instruction):
        tokens = tokenizer.load(directory)
        tokens.chat_template, tokens.bos_token = template, tokenizer.END
        return tokenizer.prompts(tokens, ["1+1?"], *instruction)[0]

    return chat


@pytest.mark.parametrize("template", [OWN + LOOP, "{{ bos_token }}" + OWN + LOOP, OWN + THINKS])
def test_the_turn_of_the_instruction(chat, template):
    start = tokenizer.END if "bos" in template else ""
    own, end = f"{start}<system>Be kind.</system>", "</user><assistant>"
    assert chat(template, "Think.") == f"{start}<system>Think.</system><user>1+1?{end}"
    assert chat(template, "Think.", "user") == f"{own}<user>1+1?\nThink.{end}"
    assert chat(template, "Think.", "only_user") == f"{start}<user>1+1?\nThink.{end}"
    assert chat(template, "", "user") == f"{own}<user>1+1?{end}"
    assert chat(template, "", "only_user") == f"{start}<user>1+1?{end}"
    assert chat(template, "") == "1+1?"


@pytest.mark.parametrize(
    ("template", "instruction_in", "said"),
    [
        (NO_SYSTEM + LOOP, "system", "fails: System role not supported.*instruction_in` to user"),
        ("{% for m in messages if m.role != 'system' %}" + TURN + "{% endfor %}", "system", "leaves the system turn"),
        (LOOP.replace(">{{ m.c", "{{ loop.first }}>{{ m.c"), "only_user", "mixes its turns"),
        ("", "user", "has no chat template"),
    ],
)
def test_templates_that_have_no_such_turn(chat, template, instruction_in, said):
    with pytest.raises(UserError, match=said):
        chat(template, "Think.", instruction_in)
    assert not template or "1+1?\nThink." in chat(template, "Think.", "user")


def test_load_without_files(tmp_path):
    for directory in (tmp_path, tmp_path / "nowhere", str(tmp_path)):
        with pytest.raises(UserError, match="no tokenizer in"):
            tokenizer.load(directory)


def test_load_damaged(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="cannot read the tokenizer"):
        tokenizer.load(tmp_path)


def test_stop_ids(directory, characters, tmp_path):
    assert tokenizer.stop_ids(directory, characters) == (0,)
    assert tokenizer.stop_ids(tmp_path, characters) == (0,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [9, 5, 9]}')
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}')
    assert tokenizer.stop_ids(tmp_path, characters) == (0, 5, 7, 9)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 5}')
    (tmp_path / "config.json").write_text('{"eos_token_id": null}')
    assert tokenizer.stop_ids(tmp_path, characters) == (0, 5)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        tokenizer.stop_ids(tmp_path, characters)


def test_no_stop_id(tmp_path):
    endless = types.SimpleNamespace(eos_token_id=None, get_added_vocab=dict)
    with pytest.raises(UserError, match="no end token"):
        tokenizer.stop_ids(tmp_path, endless)


@pytest.mark.parametrize("alphabet", ["aba", "a b", "é"])
def test_bad_alphabet(alphabet, tmp_path):
    with pytest.raises(ValueError, match="alphabet"):
        tokenizer.build_characters(alphabet, tmp_path)


@pytest.mark.skipif("DOTS_DATA" not in os.environ, reason="DOTS_DATA is not set")
def test_qwen():
    directory = Path(os.environ["DOTS_DATA"]) / "tokenizer/qwen2.5"
    qwen = tokenizer.load(directory)
    texts = ["Find $x^2 + 1 = 0$ for x.\n\n  Naïve?  東京 🙂", "2 + 2 = 4 .", "\\boxed{919}"]
    tokens, lengths = tokenizer.encode(qwen, texts, 64)
    assert tokenizer.decode(qwen, tokens, lengths) == texts
    pieces = [tokenizer.lengths(qwen, row[:size].tolist()) for row, size in zip(tokens, lengths, strict=True)]
    assert [sum(piece) for piece in pieces] == [len(text) for text in texts]  # also where ids are parts of characters
    assert [len(piece) for piece in pieces] == lengths.tolist() and pieces[1] == [1, 2, 1, 1, 2, 1, 1, 2]
    half = qwen("🙂🙂")["input_ids"][:-1]
    assert sum(tokenizer.lengths(qwen, half)) == len(tokenizer.decode(qwen, [half], [len(half)])[0])
    assert lengths[1] == 8  # digits are single tokens, nothing is added
    ended = np.array([[*tokens[1, :8], 151645, 17], [*tokens[1, :8], 151643, 17]])
    assert tokenizer.decode(qwen, ended, np.array([9, 9])) == [texts[1]] * 2
    assert tokenizer.stop_ids(directory, qwen) == (151643, 151645)
    chat, length = tokenizer.encode(qwen, ["<|im_start|>user\n"], 64)
    assert chat[0, 0] == 151644
    assert length.tolist() == [3]
