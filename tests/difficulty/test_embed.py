import json
import os
import shutil

import jax
import numpy as np
import pytest

from dots_jax import policy
from dots_jax.core import sharding
from dots_jax.core.errors import UserError
from dots_jax.core.files import ROOT
from dots_jax.data import arithmetic
from dots_jax.difficulty import embed
from dots_jax.policy import families, source

POLICY = os.path.join(ROOT, "assets", "quickstart_policy")
TEXTS = arithmetic.make(40, 1, 0)[0].texts + ("s1=", "p" + "1234567" * 3 + "=")  # two padded lengths
HOW = {"dtype": "float32", "batch_tokens": 128}  # 8 rows of 16 tokens, 4 of 32


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(devices=jax.devices()[:1])


@pytest.fixture
def made(mesh, tmp_path):
    """The embeddings of TEXTS and their file."""
    found = embed.make(TEXTS, POLICY, mesh, str(tmp_path / "cache"), **HOW)
    (file,) = (tmp_path / "cache").glob("*.npy")
    return found, file


@pytest.fixture
def blocks(monkeypatch):
    """How many blocks have been computed; set `fail_at` to stop before one of them."""
    real, count = embed.mean_hidden, {"done": 0, "fail_at": None}

    def counted(*args):
        if count["done"] == count["fail_at"]:
            raise InterruptedError
        count["done"] += 1
        return real(*args)

    monkeypatch.setattr(embed, "mean_hidden", counted)
    return count


def test_mean_of_the_golden_hidden_states(goldens, mesh):
    golden = np.load(goldens / "qwen2_tied" / "golden.npz")
    config, params = policy.load(goldens / "qwen2_tied", mesh)
    found = embed.mean_hidden(params, golden["tokens"], golden["lengths"], config, mesh)
    for row, states, length in zip(found, golden["last_hidden"], golden["lengths"], strict=True):
        np.testing.assert_allclose(row, states[:length].mean(0), atol=2e-5)


def test_neighbours_blocks_and_devices_do_not_matter(made, mesh, tmp_path):
    found, _ = made
    assert found.shape == (42, 96) and found.dtype == np.float32 and found.std(0).min() > 0
    for i in (0, 40, 41):
        alone = embed.make(TEXTS[i : i + 1], POLICY, mesh, str(tmp_path / str(i)), **HOW)
        np.testing.assert_allclose(alone[0], found[i], atol=1e-5)
    eight = embed.make(TEXTS, POLICY, sharding.make_mesh(fsdp=2, tensor=2), str(tmp_path / "eight"), **HOW)
    np.testing.assert_allclose(eight, found, atol=1e-5)


def test_the_padding_of_accelerators_changes_nothing(made, mesh, tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "length_unit", lambda platform: 128)
    np.testing.assert_allclose(embed.make(TEXTS, POLICY, mesh, str(tmp_path), **HOW), made[0], atol=1e-5)


def test_the_second_call_loads_no_model(made, mesh, monkeypatch):
    found, file = made
    monkeypatch.setattr(policy, "load", None)
    np.testing.assert_array_equal(embed.make(TEXTS, POLICY, mesh, str(file.parent), **HOW), found)
    about = json.loads(file.with_suffix(".json").read_text())
    assert about["questions"] == 42 and about["width"] == 96 and about["dtype"] == "float32"
    assert sorted(os.listdir(file.parent)) == sorted([file.name, file.with_suffix(".json").name])


def test_the_key_holds_texts_order_dtype_family_and_weights(tmp_path):
    shutil.copytree(POLICY, tmp_path / "model")
    key = embed._key(tmp_path / "model", TEXTS, "float32", 9)
    assert key == embed._key(POLICY, TEXTS, "float32", 9)
    others = [embed._key(POLICY, TEXTS[::-1], "float32", 9), embed._key(POLICY, TEXTS[1:], "float32", 9)]
    others += [embed._key(POLICY, TEXTS, "bfloat16", 9), embed._key(POLICY, TEXTS, "float32", 8)]
    others.append(embed._key(POLICY, TEXTS, "float32", 9, families.Family("mine", "Mine")))
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    others.append(embed._key(tmp_path / "model", TEXTS, "float32", 9))
    assert len({key, *others}) == 7


def test_an_interrupted_call_continues(made, mesh, blocks, tmp_path):
    found, _ = made
    cache = str(tmp_path / "again")
    blocks["fail_at"] = 4
    with pytest.raises(InterruptedError):
        embed.make(TEXTS, POLICY, mesh, cache, **HOW)
    assert not list((tmp_path / "again").glob("*.npy"))
    (torn,) = (tmp_path / "again").glob("*.partial/*-2.npy")
    torn.write_bytes(b"torn")
    blocks["fail_at"] = None
    np.testing.assert_array_equal(embed.make(TEXTS, POLICY, mesh, cache, **HOW), found)
    assert blocks["done"] == 7 + 1  # all 7, the torn one twice


def test_a_damaged_cache_is_made_anew(made, mesh, capsys):
    found, file = made
    file.write_bytes(file.read_bytes()[:500])
    np.testing.assert_array_equal(embed.make(TEXTS, POLICY, mesh, str(file.parent), **HOW), found)
    assert "made anew" in capsys.readouterr().err


def test_long_texts_are_cut(mesh, tmp_path, capsys):
    cut = embed.make(["s123456=", "s12"], POLICY, mesh, str(tmp_path), dtype="float32", max_tokens=3)
    np.testing.assert_allclose(cut[0], cut[1], atol=1e-5)
    assert "1 of 2 questions are longer than 3 tokens" in capsys.readouterr().err


def test_mistakes(made, mesh, tmp_path):
    found, file = made
    bad, text = np.array(found), tmp_path / "text.npy"
    bad[5, 3] = np.nan
    archive = tmp_path / "archive.npy"
    text.write_text("no numbers")
    archive.write_text("PK\x03\x04 no archive")
    np.save(tmp_path / "bad.npy", bad)
    np.save(tmp_path / "flat.npy", found[0])
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    np.testing.assert_array_equal(embed.read(str(file), 42, TEXTS), found)
    for path, count, texts, said in (
        (tmp_path / "none.npy", 42, None, "No such file"),
        (text, 42, None, "not a .npy file"),
        (archive, 42, None, "not a .npy file"),
        (tmp_path / "flat.npy", 96, None, "no matrix"),
        (tmp_path / "words.npy", 1, None, "no matrix"),
        (file, 41, None, "42 embeddings for 41"),
        (tmp_path / "bad.npy", 42, None, "row 5"),
        (file, 42, TEXTS[::-1], "other questions"),
    ):
        with pytest.raises(UserError, match=said):
            embed.read(str(path), count, texts)
    with pytest.raises(UserError, match="no tokens"):
        embed.make(["s1=", ""], POLICY, mesh, str(tmp_path / "c"), **HOW)
    config, params = policy.load(POLICY)
    policy.save(tmp_path / "nan", config, {**params, "norm": params["norm"] * np.nan}, tokenizer_dir=POLICY)
    with pytest.raises(UserError, match="question 0"):
        embed.make(["s1="], tmp_path / "nan", mesh, str(tmp_path / "c"), **HOW)


def test_a_file_of_embeddings_is_no_model_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert source.find("runs/pool.npy") == "runs/pool.npy"  # who reads it says that it is missing
    (tmp_path / "runs").mkdir()
    np.save("runs/pool.npy", np.zeros((2, 3)))
    assert source.find("runs/pool.npy") == "runs/pool.npy"
