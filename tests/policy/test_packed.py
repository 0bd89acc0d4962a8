import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dots_jax.policy import attention, packed

U, G, H, K, E = 3, 4, 4, 2, 8
SPEC = packed.PackSpec(64, (16, 32), (8, 16), "cpu")
LENGTHS = np.array([32, 1, 20, 0, 5, 17, 16, 3, 0, 30, 2, 9], np.int32)
PROMPTS = np.array([16, 0, 5], np.int32)


def packs(lengths, spec):
    """All micro-batches of rows of these lengths."""
    step = jax.jit(packed.pack, static_argnums=1)
    waiting, out = packed.Waiting.of(jnp.asarray(lengths)), []
    while waiting.some:
        pack, waiting = step(waiting, spec)
        out.append(pack)
    return out


def test_every_token_is_in_one_micro_batch():
    found = []
    for pack in packs(LENGTHS, SPEC):
        real, row, place = (np.asarray(x) for x in (pack.is_real, pack.token_row, pack.place))
        found += zip(row[real].tolist(), place[real].tolist(), strict=True)
        assert SPEC.widths[pack.width] >= pack.length.max()
        np.testing.assert_array_equal(
            np.asarray(pack.start)[np.asarray(pack.slot)[real]] + place[real], np.flatnonzero(real)
        )
    assert sorted(found) == [(r, t) for r, n in enumerate(LENGTHS) for t in range(n)]


@pytest.mark.parametrize("rows, share", [(8 * 64, 0.08), (8 * 8, 0.15)])
def test_little_is_padding_with_lengths_like_the_papers(rows, share):
    """Log-normal, mean 800, at most 3,072: a minibatch of 64 groups on one device, and on each of eight."""
    random = np.random.default_rng(0)
    spec = packed.PackSpec.of(8192, rows, 3072, 1024, "gpu")
    real = computed = 0
    for _ in range(8):
        lengths = np.clip(np.rint(random.lognormal(np.log(800) - 0.32, 0.8, rows)), 1, 3072).astype(np.int32)
        real, computed = real + lengths.sum(), computed + spec.tokens * len(packs(lengths, spec))
    assert 1 - real / computed < share


def dense(q, k, v, shared, lengths, prompt_lengths):
    """Attention of each row [n, T, ..] after its prompt [n, S, ..], written out."""
    keys, values = (jnp.concatenate(x, 1).repeat(H // K, 2) for x in zip(shared, (k, v), strict=True))
    S, T = shared[0].shape[1], q.shape[1]
    seen = jnp.concatenate([jnp.broadcast_to(jnp.arange(S) < prompt_lengths[:, None, None], (len(q), T, S)),
                            jnp.broadcast_to(jnp.tril(jnp.ones((T, T), bool)), (len(q), T, T))], 2)  # fmt: skip
    scores = jnp.einsum("nthe,nche->nhtc", q, keys) / np.sqrt(E)
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -jnp.inf), -1)
    real = jnp.arange(T) < lengths[:, None]
    return jnp.where(real[..., None, None], jnp.einsum("nhtc,nche->nthe", weights, values), 0)


@pytest.mark.parametrize("after", [True, False], ids=["after prompts", "alone"])
@pytest.mark.parametrize("platform, dtype", [("cpu", "float32"), ("gpu", "bfloat16")])
def test_attention_and_its_gradients(after, platform, dtype, monkeypatch):
    """Against rows side by side: within 1e-5, in bfloat16 and as a GPU lays them within 2% of the norm."""
    monkeypatch.setattr(attention, "QUERY_BLOCK", 24)  # of 32
    spec = dataclasses.replace(SPEC, platform=platform, prompt_widths=SPEC.prompt_widths if after else (0,))
    random = np.random.default_rng(0)
    lengths = LENGTHS if after else np.where(LENGTHS > 20, 0, LENGTHS)
    shared = tuple(jnp.asarray(random.standard_normal((U, 16, K, E)), dtype) for _ in "kv")
    for pack in packs(lengths, spec):
        q, k, v, weight = (jnp.asarray(random.standard_normal((64, n, E)), dtype) for n in (H, K, K, H))
        group = jnp.minimum(pack.row // G, U - 1)
        prompts = packed.Prompts(group, jnp.asarray(PROMPTS)[group])

        def ours(q, k, v, shared, pack=pack, prompts=prompts):
            return packed.attend(q, k, v, shared if after else None, pack, prompts if after else None, spec)

        def theirs(q, k, v, shared, pack=pack, prompts=prompts):
            index = jnp.minimum(pack.start[:, None] + jnp.arange(32), 63)
            own, given = (
                (x.astype(jnp.float32)[index] for x in (q, k, v)),
                [x.astype(jnp.float32)[prompts.index] for x in shared],
            )
            out = dense(*own, given, pack.length, prompts.length * after)
            return jnp.where(pack.is_real[:, None, None], out[pack.slot, jnp.minimum(pack.place, 31)], 0)

        real = pack.is_real[:, None, None]
        results = []
        for function in (ours, theirs):
            out, back = jax.vjp(function, q, k, v, shared)
            results.append((out, back(jnp.where(real, weight, 0).astype(out.dtype))))
        for x, y in zip(*map(jax.tree.leaves, results), strict=True):
            x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
            if dtype == "float32":
                np.testing.assert_allclose(x, y, atol=1e-5)
            else:
                assert np.linalg.norm(x - y) <= 0.02 * np.linalg.norm(y) + 1e-6
