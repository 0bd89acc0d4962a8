import jax
import numpy as np
import pytest

from dots_jax import policy
from dots_jax.core import sharding
from dots_jax.core.errors import UserError
from dots_jax.policy import scoring, transformer


@pytest.fixture(scope="module")
def mesh():
    if len(jax.devices()) != 8:
        pytest.skip("needs 8 devices")
    return sharding.make_mesh(data=2, fsdp=2, tensor=2)


def one_device():
    return sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])


@pytest.mark.parametrize("sizes, expected", [((-1, 2, 2), (2, 2, 2)), ((2, -1, 1), (2, 4, 1)), ((4, 2, -1), (4, 2, 1))])
def test_minus_one_takes_what_is_left(mesh, sizes, expected):
    assert tuple(sharding.make_mesh(*sizes).shape.values()) == expected


def test_a_policy_whose_heads_do_not_divide_is_not_loaded(mesh, tiny_config, tiny_params, tmp_path):
    policy.save(tmp_path / "policy", tiny_config, tiny_params)
    with pytest.raises(UserError, match="tensor=4 does not divide the policy's 2 key/value heads"):
        policy.load(tmp_path / "policy", sharding.make_mesh(2, 1, 4))


def test_platform():
    """Of the devices, which an abstract mesh may name too."""
    assert sharding.platform(one_device()) == sharding.platform(one_device().abstract_mesh) == "cpu"
    assert sharding.platform(sharding.abstract_mesh((1, 8, 1), "tpu")) == "tpu"
    assert sharding.platform(jax.sharding.AbstractMesh((8,), ("fsdp",))) == jax.default_backend()


@pytest.mark.parametrize("sizes", [(3, 1, 1), (-1, 3, 1), (16, 1, 1), (2, 1, 1), (0, 1, 1), (-2, 1, 1)])
def test_mesh_that_does_not_fit(mesh, sizes):
    with pytest.raises(UserError, match=f"data={sizes[0]} x fsdp={sizes[1]} x tensor={sizes[2]}"):
        sharding.make_mesh(*sizes)


def test_axes_that_do_not_divide_are_copied(mesh):
    assert sharding.spec(mesh, (6, 5), ("embed", "mlp")) == jax.P("fsdp", None)
    assert sharding.spec(mesh, (3, 8, 4), ("layer", "heads", None)) == jax.P(None, "tensor", None)


def test_every_parameter_divides_or_is_copied(mesh, tiny_config):
    declared = jax.tree.leaves(transformer.declare(tiny_config))
    for p, s in zip(declared, jax.tree.leaves(transformer.shardings(tiny_config, mesh)), strict=True):
        s.shard_shape(p.shape)  # raises where it does not divide
        wanted = sum(sharding.RULES.get(axis) is not None for axis in p.axes)
        assert sum(axis is not None for axis in s.spec) == wanted, p


def test_init(mesh, tiny_config):
    key = jax.random.key(0)
    params, split = policy.init(tiny_config, key), policy.init(tiny_config, key, mesh=mesh)
    jax.tree.map(np.testing.assert_array_equal, split, params)  # the numbers do not depend on the mesh
    assert split["embed"].addressable_shards[0].data.shape == (20, 8)
    assert (np.asarray(params["norm"]) == 1).all() and not np.asarray(params["layers"]["q_bias"]).any()
    assert 0.015 < np.std(params["embed"]) < 0.025
    half = jax.eval_shape(lambda: policy.init(tiny_config, key, "bfloat16"))
    assert {x.dtype.name for x in jax.tree.leaves(half)} == {"bfloat16"}


def test_eight_devices_compute_what_one_does(mesh, tiny_config, tiny_params):
    """Logits, log-probs and gradients: within 1e-5 of values of order 1."""
    tokens = np.random.default_rng(0).integers(0, tiny_config.num_tokens, (8, 10)).astype(np.int32)

    def loss(params, tokens):
        out = scoring.token_logprobs(params, tiny_config, tokens, np.full(8, 10), 0.8, chunk=32)
        return out[0].mean(), out

    results = []
    for m in (one_device(), mesh):
        params = jax.device_put(tiny_params, transformer.shardings(tiny_config, m))
        with jax.set_mesh(m):
            rows = jax.device_put(tokens, sharding.rows(m))
            logits = jax.jit(policy.logits, static_argnums=1)(params, tiny_config, rows)
            step = jax.jit(jax.grad(loss, has_aux=True))
            results.append(jax.device_get((logits, step(params, rows))))
    assert np.abs(results[0][0]).max() > 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *results)


def test_one_axis_takes_what_is_left():
    assert sharding.axis_sizes(-1, 2, 1, 8) == (4, 2, 1)
    with pytest.raises(UserError, match=r"config.mesh.data, config.mesh.fsdp are all -1"):
        sharding.axis_sizes(-1, -1, 1, 8)
