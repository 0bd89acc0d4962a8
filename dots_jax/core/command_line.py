"""The command line that all programs share: `--config=FILE --workdir=DIR --config.field=value`."""

import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping

from absl import flags
from ml_collections import ConfigDict, config_flags

from dots_jax.core import config_rules, fields, plugins
from dots_jax.core.errors import UserError, exit_code, flush, near
from dots_jax.core.files import ROOT
from dots_jax.core.rules import Rule, shortened


def run(
    function: Callable[[ConfigDict, str], int | None],
    default_config: str,
    help_text: str,
    argv: list[str] | None = None,
    values: flags.FlagValues | None = None,
    rules: Mapping[str, Rule] = config_rules.RUN,
    interrupted: str = "",
) -> int:
    """Reads the flags, calls `function(config, workdir)` and returns the exit code, as `exit_code`; 0: help is shown.

    `default_config`, which replaces `{default}` in `help_text` as PROCESSES does `{processes}`, is looked up like any
    relative --config: in the current directory, then beside the package; `rules` say what its fields may be. `values`
    declares flags of the program's own and gets the values of all.
    """
    argv, workdir = list(sys.argv[1:] if argv is None else argv), ""
    values = flags.FlagValues() if values is None else values
    if any(re.fullmatch(r"--?(h|help|helpfull|helpshort)", arg) for arg in argv):
        text = help_text.replace("{default}", default_config).replace("{processes}", PROCESSES)
        return exit_code(lambda: print(text, end=""))

    def program():
        nonlocal workdir
        config, workdir = parse(argv, default_config, values, rules)
        from dots_jax.core import runtime  # imports jax: wrong flags are reported before

        runtime.start(values.compilation_cache)
        return function(config, workdir)

    code = exit_code(program, lambda: workdir, interrupted)
    distributed = sys.modules.get("dots_jax.core.distributed")  # without it nobody has joined
    return distributed.leave(code) if distributed else code


PROCESSES = """\
  --distributed           one of several processes, which JAX finds on TPU VMs and under SLURM;
                          launch/ has scripts
  --coordinator=HOST:PORT --num_processes=N --process_id=I
                          the same where it does not: where process 0 listens, how many, which
"""


def process_flags(values: flags.FlagValues) -> Callable[[], None]:
    """Declares the flags of PROCESSES; the function that it returns joins the processes, before a device is touched."""
    flags.DEFINE_bool("distributed", False, "", flag_values=values)
    flags.DEFINE_string("coordinator", None, "", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("process_id", None, "", lower_bound=0, flag_values=values)
    names = ("distributed", "coordinator", "num_processes", "process_id")

    def join() -> None:
        from dots_jax.core import distributed, runtime

        if distributed.initialize(**{name: values[name].value for name in names}):
            runtime.start_several(values.compilation_cache)

    return join


def run_words(function: Callable[[list[str]], None], help_text: str, argv: list[str] | None = None) -> int:
    """Calls `function(words of the command line)` and returns the exit code, as `exit_code`; 0: help is shown."""
    argv = list(sys.argv[1:] if argv is None else argv)
    is_asked = {"-h", "--help"} & set(argv)
    return exit_code(lambda: print(help_text, end="") if is_asked else function(argv))


def end(code: int) -> None:
    """Ends the process; at once where something failed, since threads that still write would have their say."""
    flush()
    os._exit(code) if code else sys.exit(0)


def parse(
    argv: list[str],
    default_config: str,
    values: flags.FlagValues | None = None,
    rules: Mapping[str, Rule] = config_rules.RUN,
) -> tuple[ConfigDict, str]:
    """The config with its overrides, and the workdir. Raises UserError; touches no disk but to read the config."""
    name, argv = _take(argv, "config", default_config)
    config = load(name)
    same_fields(config, load(os.path.join(ROOT, default_config)), default_config, rules)
    names = list(fields.flatten(config.to_dict()))
    if "reward.name" in names:
        argv = [re.sub(r"^(--?config\.reward)(?==|$)", r"\1.name", arg) for arg in argv]
    for arg in argv:
        match = re.match(r"--?(?:no)?config\.([^=]*)", arg)
        if match and match[1] not in names:
            raise UserError(_unknown_field(match[1], names, name))
    values = flags.FlagValues() if values is None else values
    argv = ["dots_jax", *argv]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        flags.DEFINE_string("workdir", None, "", flag_values=values)
        flags.DEFINE_string("compilation_cache", None, "", flag_values=values)
        rest = values(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        names = ["config", "workdir", "compilation_cache", "help", *values]
        hint = near(error.flagname, names, "--{}", 0.5)
        raise UserError(f"unknown flag --{error.flagname}; {hint}--help shows the flags") from error
    except flags.IllegalFlagValueError as error:
        match = re.match(r"flag --config\.([\w.]+)=(.*?): ", str(error), re.DOTALL)
        if match is None:
            raise UserError(str(error)) from error
        raise UserError(f"--config.{match[1]}={match[2]} must be {rules[match[1]](match[2])}") from error
    except (flags.Error, ValueError, TypeError) as error:
        raise UserError(f"{str(error).replace('flag --', '--')}; --help shows the flags") from error
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}: everything is a flag, --help shows them")
    config_rules.check(config, rules)
    path, _, arg = name.partition(":")
    stem = os.path.splitext(os.path.basename(path))[0]
    default = os.path.join("runs", re.sub(r"[^\w.-]+", "_", f"{stem}-{arg}" if arg else stem))
    workdir = default if values.workdir is None else values.workdir
    if not workdir:
        raise UserError("--workdir is empty; name a directory or leave the flag out")
    if "://" in workdir:
        raise UserError(f"--workdir={workdir} is not a local directory; only those are supported")
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise UserError(f"--workdir={workdir} is a file; name a directory")
    return config, workdir


def load(name: str) -> ConfigDict:
    """The config of `FILE[:ARG]`: `get_config([ARG])` of that Python file. Raises UserError."""
    path, _, arg = name.partition(":")
    tried = [path] if os.path.isabs(path) else [path, os.path.join(ROOT, path)]
    file = next((os.path.abspath(p) for p in tried if os.path.isfile(p)), None)
    if file is None:
        where = "" if os.path.isabs(path) else f" (looked in {' and '.join(dict.fromkeys((os.getcwd(), ROOT)))})"
        raise UserError(f"no config file {path!r}{where}; --config takes the path of a Python file")
    plugins.FOLDERS.append(os.path.dirname(file))
    if ROOT not in sys.path:
        sys.path.insert(0, ROOT)  # config files import configs.common
    try:
        spec = importlib.util.spec_from_file_location("dots_jax_config", file)
        if spec is None:
            raise UserError(f"config file {path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        get_config = getattr(module, "get_config", None)
        if not callable(get_config):
            raise UserError(f"config file {path} has no function get_config; define one that returns a ConfigDict")
        args = [arg] if arg else []
        try:
            inspect.signature(get_config).bind(*args)
        except TypeError:
            mend = "takes no argument; leave out" if args else "wants an argument; add"
            raise UserError(f"get_config of {path} {mend} the part after the colon in --config=FILE:ARG") from None
        config = get_config(*args)
    except UserError:
        raise
    except Exception as error:
        now = "; config.reward is now called config.reward.name" if "override field 'reward'" in str(error) else ""
        why = f"{type(error).__name__}: {error}{now}"
        raise UserError(f"config file {path} failed{_line(error, file)}: {why}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"get_config of {path} returned {type(config).__name__}; it must return an ml_collections.ConfigDict"
        )
    return config


def _take(argv: list[str], name: str, default: str) -> tuple[str, list[str]]:
    """The value of the last `--name=VALUE` or `--name VALUE`, and the other arguments."""
    value, rest, args = default, [], iter(argv)
    for arg in args:
        if re.fullmatch(rf"--?{name}(=.*)?", arg, re.DOTALL):
            value = arg.partition("=")[2] if "=" in arg else next(args, "")
            if not value or value.startswith("-"):
                raise UserError(f"--{name} needs a value: --{name}=FILE")
        else:
            rest.append(arg)
    return value, rest


def same_fields(config: ConfigDict, like: ConfigDict, name: str, rules: Mapping[str, Rule] = config_rules.RUN) -> None:
    """Raises UserError at the first field of `like`, the config of the file `name`, that the config lacks or has of
    another type that its rule refuses, and at the first that it has besides.
    """
    expected, given = fields.flatten(like.to_dict()), fields.flatten(config.to_dict())
    for field in given:
        if config_rules.RENAMED.get(field) in expected:
            raise UserError(_unknown_field(field, list(expected), "the config file"))
    for field, default in expected.items():
        if field not in given:
            raise UserError(f"the config lacks the field {field}; start it from {name}")
        value = given[field]
        if type(value) is not type(default) and (kind := rules[field](value)):
            raise UserError(f"config.{field}={shortened(value)} must be {kind}")
    for field in given:
        if field not in expected:
            raise UserError(_unknown_field(field, list(expected), "the config file"))


def _unknown_field(field: str, names: list[str], name: str) -> str:
    if config_rules.RENAMED.get(field) in names:
        kind = "replaced by" if field in config_rules.REPLACED else "called"
        return f"config.{field} is now {kind} config.{config_rules.RENAMED[field]}"
    inside = [f for f in names if f.startswith(f"{field}.")]
    if inside:
        return f"config.{field} is a group of fields; set one of them, such as --config.{inside[0]}=VALUE"
    leaf = sorted((f for f in names if f.rsplit(".", 1)[-1] == field.rsplit(".", 1)[-1]), key=lambda f: f.count("."))
    where = name if name.endswith(".py") else "configs/common.py"
    hint = f"did you mean config.{leaf[0]}?" if leaf else near(field, names, "config.{}") or f"{where} lists the fields"
    return f"unknown config field config.{field} in {name}; {hint.rstrip()}"


def _line(error: Exception, file: str) -> str:
    """` at line N` of the config file, where the error came from there."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    return f" at line {lines[-1]}" if lines else ""
