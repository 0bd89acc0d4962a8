"""The command line that all programs share: `--config=FILE --workdir=DIR --config.field=value`."""

import difflib
import functools
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping

from absl import flags
from ml_collections import ConfigDict, config_flags

from dots_jax.core import config_rules, plugins
from dots_jax.core.errors import UserError, exit_code
from dots_jax.core.files import ROOT

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a tuple such as (0.9, 0.99)",
}
_ALSO = {float: (float, int), tuple: (tuple, list)}  # what else does for it


def run(
    function: Callable[[ConfigDict, str], None],
    default_config: str,
    help_text: str,
    argv: list[str] | None = None,
    own: flags.FlagValues | None = None,
    rules: Mapping[str, config_rules.Rule] = config_rules.RUN,
    interrupted: str = "",
) -> int:
    """Reads the flags, calls `function(config, workdir)` and returns the exit code.

    0: done, or help shown (`{default}` in `help_text` becomes `default_config`); 2: the user's mistake, one line
    on stderr; 130: interrupted. Other exceptions pass. `default_config` is looked up like any relative --config:
    in the current directory, then beside the package; `rules` say what its fields may be. `own` declares flags of the
    program's own and gets the values of all. `interrupted` is said of a run that was.
    """
    argv, workdir = list(sys.argv[1:] if argv is None else argv), ""
    own = flags.FlagValues() if own is None else own
    if any(re.fullmatch(r"--?(h|help|helpfull|helpshort)", arg) for arg in argv):
        print(help_text.replace("{default}", default_config), end="")
        return 0

    def program():
        nonlocal workdir
        config, workdir = parse(argv, default_config, own, rules)
        from dots_jax.core import runtime  # imports jax: wrong flags are reported before

        runtime.start(own.compilation_cache)
        function(config, workdir)

    return exit_code(program, lambda: workdir, interrupted)


def end(code: int) -> None:
    """Ends the process; at once where something failed, since threads that still write would have their say."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code) if code else sys.exit(0)


def parse(
    argv: list[str],
    default_config: str,
    own: flags.FlagValues | None = None,
    rules: Mapping[str, config_rules.Rule] = config_rules.RUN,
) -> tuple[ConfigDict, str]:
    """The config with its overrides, and the workdir. Raises UserError; touches no disk but to read the config."""
    name, argv = _take(argv, "config", default_config)
    config = load(name)
    same_fields(config, load(os.path.join(ROOT, default_config)), default_config)
    fields = _fields(config)
    for arg in argv:
        match = re.match(r"--?(?:no)?config\.([^=]*)", arg)
        if match and match[1] not in fields:
            raise UserError(_unknown_field(match[1], fields, name))
    values = flags.FlagValues() if own is None else own
    known = ["config", "workdir", "compilation_cache", "help", *values]
    argv = ["dots_jax", *argv]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        flags.DEFINE_string("workdir", None, "", flag_values=values)
        flags.DEFINE_string("compilation_cache", None, "", flag_values=values)
        rest = values(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, known, 1, 0.5)
        hint = f"did you mean --{near[0]}? " if near else ""
        raise UserError(f"unknown flag --{error.flagname}; {hint}--help shows the flags") from error
    except flags.IllegalFlagValueError as error:
        text = re.sub(r"\('Non-boolean argument to boolean flag', (.*)\)", r"\1 is not true or false", str(error))
        raise UserError(_wrong_type(text, config)) from error
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
    path, colon, arg = name.partition(":")
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
        args = [arg] if colon else []
        try:
            inspect.signature(get_config).bind(*args)
        except TypeError:
            wanted = "takes no argument; leave out" if args else "wants an argument; add"
            raise UserError(f"get_config of {path} {wanted} the part after the colon in --config=FILE:ARG") from None
        config = get_config(*args)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"config file {path} failed{_line(error, file)}: {type(error).__name__}: {error}") from error
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


def same_fields(config: ConfigDict, like: ConfigDict, name: str) -> None:
    """Raises UserError at the first field of `like`, the config of the file `name`, that the config lacks or has of
    another kind, and at the first that it has besides.
    """
    known, given = _fields(like), _fields(config)
    for field in known:
        if field not in given:
            raise UserError(f"the config lacks the field {field}; start it from {name}")
        value, kind = (functools.reduce(lambda part, step: part[step], field.split("."), c) for c in (config, like))
        kind = type(kind)
        if not isinstance(value, _ALSO.get(kind, kind)) or isinstance(value, bool) != (kind is bool):
            raise UserError(f"config.{field}={value!r} must be {_KINDS[kind]}")
    for field in given:
        if field not in known:
            raise UserError(_unknown_field(field, known, "the config file"))


def _fields(config: ConfigDict, prefix: str = "") -> list[str]:
    """Dotted names of all fields that hold values."""
    names = []
    for name, value in config.items():
        names += _fields(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else [prefix + name]
    return names


def _unknown_field(field: str, fields: list[str], name: str) -> str:
    if config_rules.RENAMED.get(field) in fields:
        return f"config.{field} is now called config.{config_rules.RENAMED[field]}"
    inside = [f for f in fields if f.startswith(f"{field}.")]
    if inside:
        return f"config.{field} is a group of fields; set one of them, such as --config.{inside[0]}=VALUE"
    near = difflib.get_close_matches(field, fields, 1, 0.6)
    leaf = [f for f in fields if f.rsplit(".", 1)[-1] == field.rsplit(".", 1)[-1]]
    best = (leaf or near)[:1]
    hint = (
        f"did you mean config.{best[0]}?"
        if best
        else f"{name if name.endswith('.py') else 'configs/common.py'} lists the fields"
    )
    return f"unknown config field config.{field} in {name}; {hint}"


def _wrong_type(message: str, config: ConfigDict) -> str:
    """What to say for absl's `flag --config.FIELD=VALUE: reason`."""
    match = re.match(r"flag --config\.([\w.]+)=(.*?): ", message, re.DOTALL)
    if match is None:
        return message
    kind = type(functools.reduce(lambda part, name: part[name], match[1].split("."), config))
    return f"--config.{match[1]}={match[2]} is not {_KINDS[kind]}"


def _line(error: Exception, file: str) -> str:
    """` at line N` of the config file, where the error came from there."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    return f" at line {lines[-1]}" if lines else ""
