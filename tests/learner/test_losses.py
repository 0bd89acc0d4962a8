"""Advantages, losses and their weights on numbers worked out by hand, and those of the released code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dots_jax import learner
from dots_jax.core import plugins
from dots_jax.core.errors import UserError
from dots_jax.learner import losses


def test_advantages_by_hand():
    rewards = jnp.array([[1.0, 0, 0, 0], [1, 1, 1, 1], [0.1, 0.1, 0.1, 0.1], [1, 0, 1, 0]])
    got = learner.advantages(rewards, std=False)
    np.testing.assert_allclose(got, [[0.75, -0.25, -0.25, -0.25], [0] * 4, [0] * 4, [0.5, -0.5, 0.5, -0.5]])
    got = learner.advantages(rewards, std=True)
    np.testing.assert_allclose(got[0], np.array([0.75, -0.25, -0.25, -0.25]) / (0.5 + 1e-6), rtol=1e-6)
    assert not np.asarray(got[1:3]).any()  # exactly zero, whatever the mean of 0.1s rounds to
    assert learner.mixed(rewards).tolist() == [True, False, False, True]


def test_losses_match_goldens(goldens):
    golden = np.load(goldens / "grpo_losses.npz")
    advantage = learner.advantages(jnp.asarray(golden["reward"]))
    np.testing.assert_allclose(advantage, golden["advantage"], atol=1e-5)
    mask = (np.arange(12) < golden["length"][:, None]).astype(np.float32)
    for kind in ("plain", "decoupled"):

        def loss(logp, kind=kind):
            clip = float(golden["clip_epsilon"])
            args = (golden["behaviour_logp"], golden["proximal_logp"], advantage.ravel(), mask, clip, kind)
            total, count, info = learner.policy_loss(logp, *args)
            return total / count, info

        (value, info), grad = jax.value_and_grad(loss, has_aux=True)(jnp.asarray(golden["logp"]))
        np.testing.assert_allclose(value, golden[f"{kind}_loss"], atol=1e-5)
        info = {name: x.sum() for name, x in info.items()}
        np.testing.assert_allclose(info["clipped"] / info["tokens"], golden[f"{kind}_clip_fraction"], atol=1e-5)
        np.testing.assert_allclose(grad, golden[f"{kind}_grad_logp"], atol=1e-5)
    kl = learner.kl_penalty(golden["logp"], golden["reference_logp"])
    np.testing.assert_allclose(kl * mask, golden["kl_k3"] * mask, atol=1e-5)


def test_clip_by_hand():
    """Ratio 1.5: clipped where the advantage is positive, not where it is negative; masked slots may hold anything."""
    logp, behaviour = jnp.log(jnp.array([[1.5, 1.5], [1.5, 9.0]])), jnp.array([[0.0, 0.0], [0.0, -jnp.inf]])
    mask = jnp.array([[1.0, 1.0], [1.0, 0.0]])
    grad, (total, count, info) = jax.grad(
        lambda x: (lambda out: (out[0], out))(
            learner.policy_loss(x, behaviour, behaviour, jnp.array([1.0, -1.0]), mask, 0.2)
        ),
        has_aux=True,
    )(logp)
    np.testing.assert_allclose(total, -1.2 - 1.2 + 1.5, rtol=1e-6)
    np.testing.assert_allclose(grad, [[0, 0], [1.5, 0]], rtol=1e-6)
    assert count == 3 and info["clipped"].tolist() == [2, 0] and info["tokens"].tolist() == [2, 1]
    assert info["ratio_max"] == pytest.approx([1.5, 1.5]) and info["ratio"] == pytest.approx([3, 1.5])
    log = np.log(1.5)
    assert info["log_ratio_sq"] == pytest.approx([2 * log**2, log**2])
    assert info["kl_behaviour"] == pytest.approx([2 * (0.5 - log), 0.5 - log])


@pytest.mark.parametrize("kind", ["plain", "decoupled", "truncated_is", lambda *args: losses.plain(*args)])
@pytest.mark.parametrize("clip, bounds", [(0.2, (0.8, 1.2)), ((0.2, 0.28), (0.8, 1.28)), ((0.1, 0.5), (0.9, 1.5))])
def test_both_bounds_of_the_clip(kind, clip, bounds):
    """A gain counts up to the upper one, a loss down to the lower one; beyond them there is no gradient."""
    ratio, zero = jnp.array([[0.5, 0.85, 1.25, 2.0]] * 2), jnp.zeros((2, 4))
    args = (zero, zero, jnp.array([1.0, -1.0]), jnp.ones((2, 4)), clip, kind)
    grad = jax.grad(lambda x: learner.policy_loss(x, *args)[0])(jnp.log(ratio))
    free = np.stack([ratio[0] < bounds[1], ratio[1] > bounds[0]])
    np.testing.assert_allclose(grad, np.where(free, ratio * np.array([[-1], [1]]), 0), rtol=1e-6)
    clipped = learner.policy_loss(jnp.log(ratio), *args)[2]["clipped"]
    assert clipped.tolist() == (~free).sum(1).tolist()


def test_truncation_by_hand():
    """Before the step the policy had moved by 3, within it by 1.5: the weight is 2, the clip around 2."""
    logp, proximal, behaviour = jnp.log(jnp.array([[4.5, 2.7]])), jnp.log(jnp.array([[3.0, 3.0]])), jnp.zeros((1, 2))
    args = (jnp.ones(1), jnp.ones((1, 2)), 0.2)
    total, _, info = learner.policy_loss(logp, behaviour, proximal, *args, losses.truncated_is, 2.0)
    np.testing.assert_allclose(total, -(2 * 1.2 + 2 * 0.9), rtol=1e-6)
    assert info["clipped"] == 1 and info["ratio_max"] == pytest.approx(4.5)
    total, _, _ = learner.policy_loss(logp, behaviour, proximal, *args, losses.decoupled)
    np.testing.assert_allclose(total, -(3 * 1.2 + 3 * 0.9), rtol=1e-6)


def test_aggregation_weights_by_hand():
    lengths = jnp.array([1, 3, 0])  # the last row does not exist
    weights = {kind: learner.aggregation_weights(lengths, kind, 5) for kind in ("token", "sequence", "constant")}
    np.testing.assert_allclose(weights["token"][:2], [1 / 4, 1 / 4])
    np.testing.assert_allclose(weights["sequence"][:2], [1 / 2, 1 / 6])
    np.testing.assert_allclose(weights["constant"][:2], [1 / 10, 1 / 10])


def test_kl_far_apart_and_masked_has_a_finite_gradient():
    logp, reference = jnp.array([-120.0, -5.0, -1.0]), jnp.array([-5.0, -120.0, -1.5])
    value, grad = jax.value_and_grad(lambda x: learner.kl_penalty(x, reference).sum())(logp)
    assert np.isfinite(grad).all() and value == pytest.approx(10 + 10 + np.exp(-0.5) - 0.5)


@pytest.mark.parametrize(
    "source, said",
    [
        ("def loss(logp, behaviour): return logp, logp > 0", "failed on log-probs .2, 3.*TypeError"),
        ("def loss(*arrays): return arrays[0]", "must return two arrays"),
        ("def loss(*arrays): return arrays[0].sum(), arrays[0] > 0", "must return two arrays"),
        ("def loss(*arrays): return arrays[7], arrays[0] > 0", "failed on .*IndexError.*, loss.py line 1"),
    ],
)
def test_a_loss_of_ones_own_that_is_none(tmp_path, monkeypatch, source, said):
    (tmp_path / "loss.py").write_text(source)
    monkeypatch.setattr(plugins, "FOLDERS", [str(tmp_path)])
    plugins._file.cache_clear()
    with pytest.raises(UserError, match=f"config.learner.loss=loss.py:loss {said}"):
        losses.find("loss.py:loss")
