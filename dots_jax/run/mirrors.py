"""Where else the scalars of `metrics.jsonl` are shown: TensorBoard and Weights & Biases, as `config.log` says."""

import os
import sys
import time

from dots_jax.core.errors import UserError, first_line, tell
from dots_jax.run import provenance


def check(log: str) -> None:
    """Raises UserError where the value of `config.log` names what is not installed."""
    if "wandb" in log.split(","):
        try:
            from wandb import init  # noqa: F401
        except ImportError as error:  # a directory that wandb has left somewhere is no package
            raise UserError("config.log names wandb, which is not installed: pip install wandb") from error


def make(config, workdir: str) -> list:
    """The mirrors that `config.log` names; nothing is written before `start`."""
    kinds = {"tensorboard": lambda: TensorBoard(workdir), "wandb": lambda: WandB(config, workdir)}
    return [kinds[name]() for name in dict.fromkeys(config.log.split(",")) if name]


class TensorBoard:
    """Events in `workdir/tensorboard`."""

    def __init__(self, workdir: str):
        self._directory, self._events, self._step = os.path.join(workdir, "tensorboard"), None, 0

    def start(self, step: int) -> None:
        """Says which step comes next; what an earlier start has written of it and later ones is hidden."""
        self._step = step

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Writes a step to the disk."""
        if self._events is None:
            self._open()
        self._event(step, summary={"value": [{"tag": k, "simple_value": v} for k, v in scalars.items()]})

    def close(self) -> None:
        """Closes the file."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _open(self) -> None:
        """The writer without its thread: where a disk is full that would wait forever."""
        sys.modules.setdefault("torch", None)  # tensorboardX would load torch where it is installed: seconds
        try:
            from tensorboardX.event_file_writer import EventsWriter
        finally:
            if sys.modules["torch"] is None:
                del sys.modules["torch"]

        os.makedirs(self._directory, exist_ok=True)
        self._events = EventsWriter(os.path.join(self._directory, "events"))
        self._event(self._step, session_log={"status": "START"})

    def _event(self, step: int, **content) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._events.write_event(Event(step=step, wall_time=time.time(), **content))
        self._events.flush()


class WandB:
    """A run of Weights & Biases, the same one however often the run in the workdir is continued."""

    def __init__(self, config, workdir: str):
        self._config, self._workdir, self._run = config, workdir, None

    def start(self, step: int) -> None:
        """Opens the run. Raises UserError where that cannot be."""
        import wandb

        for name, value in (("WANDB_SILENT", "true"), ("WANDB_CONSOLE", "off")):  # the screen is ours
            os.environ.setdefault(name, value)
        try:
            self._run = wandb.init(
                project="dots_jax",
                name=f"{self._config.name} {os.path.basename(os.path.abspath(self._workdir))}".strip(),
                id=provenance.run_id(self._workdir),
                resume="allow",
                dir=self._workdir,
                config=self._config.to_dict(),
            )
        except Exception as error:  # of wandb and the network, many kinds
            raise UserError(
                f"config.log names wandb, which does not start: {first_line(error)}; call `wandb login`, set "
                "WANDB_MODE=offline, or leave it out"
            ) from error
        tell(self._run.url or f"offline; later `wandb sync {os.path.dirname(self._run.dir)}`", "wandb")

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Hands over a step; one that it has already is left as it is."""
        self._run.log(scalars, step=step)

    def close(self) -> None:
        """Returns when all is sent, or on disk where it is offline; a run that an exception ends has failed."""
        if self._run is not None:
            self._run.finish(exit_code=int(sys.exc_info()[0] is not None))
