"""Trains: `python -m dots_jax.main --config=FILE --workdir=DIR --config.field=value`."""

import math
import time

from absl import flags

from dots_jax.core import command_line
from dots_jax.core.errors import UserError

HELP = """\
Fine-tunes a policy by GRPO on verifiable questions.

usage: python -m dots_jax.main [--config=FILE[:ARG]] [--workdir=DIR] [--config.FIELD=VALUE ...]

  --config=FILE[:ARG]     a Python file whose get_config([ARG]) returns the run's config
                          (default: {default})
  --workdir=DIR           where everything is written (default: runs/<name of the config>);
                          the same command continues a run that was stopped
  --config.FIELD=VALUE    sets one field, such as --config.train.steps=40; all fields with their
                          meaning: configs/common.py
  --minutes=10            stops with a checkpoint where another step would not end within so many
                          minutes of the start, but not before the first; the same command continues;
                          exit code 0
{processes}\
  --compilation_cache=DIR|off
                          where compiled programs are kept (default: dots_jax/compiled in the user's
                          cache; off for several processes, which need a directory that all see);
                          JAX_COMPILATION_CACHE_DIR in the environment goes before it
  --plan                  trains nothing and writes nothing: prints the memory, tokens and FLOPs that
                          the run would need, and what to change where a device has less; exit code
                          0 if it fits, 3 if not. policy.path may be a published name such as
                          Qwen/Qwen2.5-Math-7B, without weights
  --compile=v6e:2x4       with --plan: compiles the run's programs too, for TPUs that need not be there
                          (v5e, v6e or v5p and the chips along each axis; needs the extra [tpu]) or
                          for cpu:8, so many host devices; prints memory and seconds of each
  --devices=N --device_memory=80GB
                          devices to plan for (default: those of config.mesh, else those here if
                          they are accelerators, else 8), and the memory of each in GB or GiB

example:
  python -m dots_jax.main --config=configs/quickstart.py --workdir=runs/first --config.train.steps=40

In the workdir: config.json, metrics.jsonl and groups.jsonl (one object per step), completions.jsonl
and questions.jsonl, page.html (also by python -m dots_jax.page), tensorboard/, curves.png, checkpoints,
predictor.safetensors, the trained policy in Hugging Face layout, and of every start the versions,
commit and differing code: versions.json and code.diff.
"""


CONTINUES = "; the same command continues from the last checkpoint, if there is one"


def main(argv: list[str] | None = None) -> int:
    """Trains, or plans, as the flags say; returns the exit code."""
    values, began = flags.FlagValues(), time.monotonic()
    flags.DEFINE_float("minutes", None, "", lower_bound=0, flag_values=values)
    join = command_line.process_flags(values)
    flags.DEFINE_bool("plan", False, "", flag_values=values)
    flags.DEFINE_integer("devices", None, "", lower_bound=1, flag_values=values)
    flags.DEFINE_string("device_memory", None, "", flag_values=values)
    flags.DEFINE_string("compile", None, "", flag_values=values)

    def train(config, workdir):
        if values.minutes is not None and not math.isfinite(values.minutes):
            raise UserError(f"--minutes={values.minutes} is no time; give a number of minutes such as 10")
        if values.plan and values.minutes is not None:
            raise UserError("--minutes is for a run, not for --plan; leave it out")
        if values.plan:
            if values.compile is not None and values.devices:
                raise UserError("--compile names the devices itself; leave --devices out")
            from dots_jax.plan import program  # imports jax: wrong flags are reported before

            return program.main(config, values.devices, values.device_memory, values.compile)
        for name in ("devices", "device_memory", "compile"):
            if values[name].value is not None:
                raise UserError(f"--{name} is for --plan; a run takes the devices that JAX finds")
        join()
        from dots_jax.plan import program
        from dots_jax.train import train

        if not config.rollout.slots:
            config.rollout.slots = program.slots(config)
        return train(config, workdir, None if values.minutes is None else began + 60 * values.minutes)

    return command_line.run(train, "configs/quickstart.py", HELP, argv, values, interrupted=CONTINUES)


if __name__ == "__main__":
    command_line.end(main())
