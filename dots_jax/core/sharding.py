"""The device mesh, and the one table that says how parameters and activations lie on it."""

import jax
import numpy as np
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from dots_jax.core.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")  # rows are split over both

# Logical axis -> mesh axis. An axis that is absent here, or does not divide, is copied to every device.
RULES = {"embed": "fsdp", "heads": "tensor", "kv_heads": "tensor", "mlp": "tensor", "vocab": "tensor"}


def axis_sizes(data: int, fsdp: int, tensor: int, devices: int) -> tuple[int, int, int]:
    """The sizes of the mesh's axes on so many devices; one may be -1 and takes what the others leave.

    Raises:
      UserError: they do not multiply to the number of devices.
    """
    sizes = [data, fsdp, tensor]
    if sizes.count(-1) > 1:
        axes = ", ".join(f"config.mesh.{axis}" for axis, size in zip(AXES, sizes, strict=True) if size == -1)
        raise UserError(
            f"{axes} are all -1: one axis may take what the others leave; set the others, to 1 for instance"
        )
    mesh = " x ".join(f"{a}={s}" for a, s in zip(AXES, sizes, strict=True))
    fixed = int(np.prod([s for s in sizes if s != -1]))
    if -1 in sizes and devices % fixed == 0:
        sizes[sizes.index(-1)] = devices // fixed
    if int(np.prod(sizes)) != devices:
        raise UserError(
            f"mesh {mesh} does not fit {devices} device(s): set config.mesh so that it does; one axis may be -1"
        )
    return tuple(sizes)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices=None) -> Mesh:
    """The mesh of all devices; one axis may be -1 and takes what the others leave.

    Raises:
      UserError: the sizes do not multiply to the number of devices, or JAX finds none.
    """
    try:
        devices = jax.devices() if devices is None else devices
    except (RuntimeError, AssertionError) as error:  # jax asserts where a platform's plug-in is not installed
        platforms = jax.config.jax_platforms
        raise UserError(
            f"JAX finds no device for JAX_PLATFORMS={platforms}; install the extra [cuda] or [tpu], or unset it"
        ) from error
    sizes = axis_sizes(data, fsdp, tensor, len(devices))
    return jax.make_mesh(sizes, AXES, (AxisType.Auto,) * 3, devices=devices)


def spec(mesh: Mesh, shape: tuple[int, ...], axes: tuple[str | None, ...], rules=RULES) -> PartitionSpec:
    """Where an array of `shape` with logical `axes` lies."""

    def mesh_axis(size, axis):
        name = rules.get(axis)
        return name if name and size % mesh.shape[name] == 0 else None

    return PartitionSpec(*(mesh_axis(s, a) for s, a in zip(shape, axes, strict=True)))


def rows(mesh: Mesh) -> NamedSharding:
    """Split over the leading axis (questions or rows)."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def num_row_shards(mesh: Mesh) -> int:
    """In how many pieces `rows` splits an array."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_heads(mesh, kv_heads: int) -> None:
    """Raises UserError where key/value heads do not divide over the tensor axis.

    cuDNN's attention takes queries, keys and values only where they are split alike.
    """
    tensor = mesh.shape["tensor"]
    if kv_heads % tensor:
        sizes = ", ".join(str(n) for n in range(1, kv_heads + 1) if kv_heads % n == 0)
        raise UserError(
            f"mesh tensor={tensor} does not divide the policy's {kv_heads} key/value heads; "
            f"set config.mesh.tensor to one of {sizes}, and config.mesh.fsdp for the other devices"
        )


def abstract_mesh(sizes: tuple[int, int, int], platform: str) -> AbstractMesh:
    """The mesh of devices that need not exist, for shapes and for lowering."""
    return AbstractMesh(sizes, AXES, (AxisType.Auto,) * 3, abstract_device=AbstractDevice(platform, None, platform))


def platform(mesh: Mesh | AbstractMesh) -> str:
    """Returns "cpu", "gpu" or "tpu": where the programs will run, which need not be where they are compiled.

    Of an abstract mesh without devices: where JAX runs by default.
    """
    return _platform(mesh.abstract_mesh)


def current_platform() -> str:
    """`platform` of the mesh that a program is traced for, by `jax.sharding.use_abstract_mesh` or `per_device`.

    Where nothing names a mesh, JAX's default.
    """
    return _platform(jax.sharding.get_abstract_mesh())


def _platform(mesh: AbstractMesh) -> str:
    device = mesh.abstract_device
    return device.platform if device else jax.default_backend()


def length_unit(platform: str) -> int:
    """Returns the number that padded lengths are multiples of: 128 on accelerators, for cuDNN and TPU tiles, else 1."""
    return 1 if platform == "cpu" else 128


def constrain(x: jax.Array, *axes) -> jax.Array:
    """Places `x` by mesh axes inside jit, where `jax.sharding.use_abstract_mesh` names a mesh; else leaves it.

    So it does in a function of each device's own part: there is nothing to split any more.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.manual_axes:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))


def per_device(function, mesh: Mesh, first: int | tuple = 0, out=None):
    """`function` on each device's own rows.

    `first`: the arguments before these that are whole on every device, or specs of where they lie; `out`: of the
    result, where these are not rows too. Specs are of the axes of `BATCH`.
    """
    if isinstance(first, int):
        first = (PartitionSpec(),) * first
    out = PartitionSpec(BATCH) if out is None else out
    # Over all axes where that is the same: cuDNN's attention is no longer split by XLA then.
    axes = BATCH if mesh.shape["tensor"] > 1 else AXES

    def wrapped(*args):
        specs = (*first, *[PartitionSpec(BATCH)] * (len(args) - len(first)))
        mapped = jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=out, axis_names=set(axes), check_vma=False
        )
        return mapped(*args)

    return wrapped


def batch_specs(shardings):
    """A tree of shardings as specs of the axes of `BATCH` alone: for functions of each device's own part."""

    def place(sharding: NamedSharding) -> PartitionSpec:
        return PartitionSpec(*(name if name in BATCH else None for name in sharding.spec))

    return jax.tree.map(place, shardings)


def split_axes(local, whole):
    """The axis along which each array of `local` is a part of that in `whole`, as only their shapes say; -1: none."""

    def axis(x, y) -> int:
        return next((i for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if a != b), -1)

    return jax.tree.map(axis, local, whole)


def gather(local, axes, without: int = 0):
    """The whole arrays, over fsdp; their gradients go back to the parts. `without` leading axes are gone."""
    return jax.tree.map(
        lambda x, axis: x if axis < 0 else jax.lax.all_gather(x, "fsdp", axis=axis - without, tiled=True), local, axes
    )


def add_up(grads, axes):
    """The sum over devices, of arrays that are split over fsdp that over data: those are added up over it already."""
    return jax.tree.map(lambda x, axis: jax.lax.psum(x, BATCH if axis < 0 else "data"), grads, axes)
