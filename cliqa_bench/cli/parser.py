"""The command line: `cliqa-bench`, or `python -m cliqa_bench`.

Only what parsing needs is imported: help, `list` and misuse answer at once.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from cliqa_bench import errors
from cliqa_bench._version import __version__
from cliqa_bench.cli import commands, completing
from cliqa_bench.cli.commands import GROUPS, Command
from cliqa_bench.errors import Mistakes, UserError
from cliqa_bench.extensions.user_traceback import format_error, is_users, place_of
from cliqa_bench.progress import FLAG, shown_as
from cliqa_bench.settings.yaml_guard import check_yaml
from cliqa_bench.system.signals import STOPS, exit_code, raise_if_stopped, say_stopped, stoppable
from cliqa_bench.terminal import as_sentence

PROG = "cliqa-bench"
LEARNING = ("torch", "torchvision", "avalanche", "sklearn", "piq", "threadpoolctl")
"""Packages that an environment for reading results may lack."""


def _completion(args: Namespace, command: str) -> int:
    parser, leaves = build_parser()
    print(completing.script(args.shell, parser, leaves.values()))
    return 0


COMMANDS = {
    **commands.COMMANDS,
    # about all of them
    "completion": Command(completing.SUMMARY, completing.arguments, _completion),
}


class _Help(DefaultHelpFormatter):
    """Shows the help texts as they are written, without the parser's notes on types and nulls."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help or ""


# -- the parser ----------------------------------------------------------------------------------------------


def _new_parser(description: str, **more: Any) -> ArgumentParser:
    return ArgumentParser(
        description=description,
        formatter_class=_Help,
        exit_on_error=False,
        print_config=None,
        allow_abbrev=False,  # what is short for one flag today may be short for two tomorrow
        **more,
    )


def build_parser(only: str | None = None) -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Builds the parser; also returns the parser of each command under its full name ("data make").

    Args:
        only: The command that is asked for: the others are there, but take no flags. By default, all do.
    """
    from cliqa_bench import __doc__ as summary

    parser = _new_parser(summary or "", prog=PROG, version=__version__)
    levels = {"": parser.add_subcommands(dest="command", title="commands", description=None)}
    leaves: dict[str, ArgumentParser] = {}
    for full, command in COMMANDS.items():
        group, _, name = full.rpartition(" ")
        if group not in levels:
            middle = _new_parser(as_sentence(GROUPS[group]))
            levels[""].add_subcommand(group, middle, help=GROUPS[group])
            middle.prog = f"{PROG} {group}"
            levels[group] = middle.add_subcommands(dest="action", title="commands", description=None)
        leaf = leaves[full] = _new_parser(as_sentence(command.summary))
        if only in (None, full):
            command.add_arguments(leaf.add_argument)
        levels[group].add_subcommand(name, leaf, help=command.summary)
        leaf.prog = f"{PROG} {full}"
    return parser, leaves


def parse(argv: Sequence[str]) -> tuple[str, Namespace]:
    """Reads the command line.

    Returns:
        The full name of the command ("data make"), and its arguments.

    Raises:
        UserError: If a command, flag, value or key of a configuration file is not understood.
    """
    named = _command_name(argv)
    parser, leaves = build_parser(named)
    for file in _config_files(argv):
        check_yaml(Path(file))
    try:
        args = parser.parse_args(list(argv))
    except (
        RecursionError,
        ValueError,
    ) as error:  # of a flag's value that is YAML, or a number of 5000 digits
        raise UserError(f"{named} is given a value that cannot be read: {error}") from error
    except argparse.ArgumentError as error:
        raise _explained(str(error), named or PROG, leaves.get(named, parser), argv) from error
    for part in named.split():
        args = args[part]
    return named, args


def _command_name(argv: Sequence[str]) -> str:
    """Returns the full name of the command that is asked for; "" before `--help` and `--version`."""
    name = ""
    for word in [*argv, ""]:
        if name in COMMANDS or word.startswith("-"):
            break
        known = list(dict.fromkeys(
            full.removeprefix(name).split()[0] for full in COMMANDS if full.startswith(name)
        ))  # fmt: skip
        if not word:
            raise UserError(f"which command? {PROG} {name}{{{','.join(known)}}}, or --help")
        if word not in known:
            raise errors.unknown("command", word, known)
        name = name + word if name + word in COMMANDS else f"{name}{word} "
    return name.strip()


def _explained(text: str, named: str, leaf: ArgumentParser, argv: Sequence[str]) -> UserError:
    """Turns the parser's error into one line, with the nearest match if a name is unknown."""
    line = " ".join(re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text).split())
    line = line.replace(f" {named.replace(' ', '.')}.", " ")
    if found := re.search(r"unrecognized arguments: (\S+)", line):
        flag = found[1].partition("=")[0]
        if flag.startswith("-"):
            shown = [a for a in leaf._actions if a.option_strings and a.help != argparse.SUPPRESS]
            return errors.unknown(f"flag of {named}", flag, [a.option_strings[-1] for a in shown])
        return UserError(f"{named} does not take {found[1]!r}; see {PROG} {named} --help")
    if found := re.search(r"does not accept option '(.+?)'", line):
        keys = [a.dest for a in leaf._actions if a.dest not in ("help", "config")]
        return errors.unknown(f"key in {_config_file(argv)}", found[1], keys)
    if "Problems parsing config" in line or "Unexpected config" in line:
        return UserError(f"{_config_file(argv)} is not a YAML file of keys and values: {line}")
    line = re.sub(r'^Parser key "(?:[\w ]+\.)*(\w+)":', r"\1:", line)
    line = re.sub(r": Does not validate against any .* Given value: (.*)", r" cannot be \1", line)
    line = re.sub(r": Expected an? (.+?)\. Got value: (.*)", r" must be \1, not \2", line)
    return UserError(f"{line.rstrip('.')}; see {PROG} {named} --help")


def _config_files(argv: Sequence[str]) -> list[str]:
    """Returns the configuration files that the command line names."""
    files = [b for a, b in itertools.pairwise(argv) if a == "--config"]
    return files + [a.partition("=")[2] for a in argv if a.startswith("--config=")]


def _config_file(argv: Sequence[str]) -> str:
    """Returns the last configuration file that the command line names."""
    return ["the configuration", *_config_files(argv)][-1]


# -- running it ----------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: The words after the program's name; None for those of the process.

    Returns:
        The exit code: 0 done; 1 an exception in a user's own code, printed with their lines; 2 misuse or bad
        data, printed in one line; 130 and 143 stopped by Ctrl-C and SIGTERM; 141 the reader of the output has
        gone. Any other exception is a bug of ours and is raised.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    command = f"python -m cliqa_bench {shlex.join(words)}".rstrip()
    try:
        with stoppable(command):
            return _obey(words, command)
    except STOPS as stop:
        say_stopped(command)
        return exit_code(stop)
    except UserError as error:
        for single in error.each if isinstance(error, Mistakes) else [error]:
            print(f"{PROG}: error: {single}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in LEARNING:
            raise
        needs = f"{words[0]} needs {error.name}, which is not installed here"
        print(f"{PROG}: error: {needs}; install cliqa_bench with all that it needs", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # what is still buffered has nowhere to go, and must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if not is_users(error):
            raise
        said = errors.one_line(f"{type(error).__name__}: {error}")
        print(f"{format_error(error)}{PROG}: error: {place_of(error)}: {said}", file=sys.stderr)
        return 1


def _recorded(command: str) -> str:
    """Returns the command line that is stored with results: without how it was shown, and where it ran."""
    return re.sub(rf" (?:--wait\b|(?:{FLAG}|--executor|--slurm)(?:=| )(?:'[^']*'|\S+))", "", command)


def _obey(words: Sequence[str], command: str) -> int:
    try:
        named, args = parse(words)
        with shown_as(args.get("progress")):
            code = COMMANDS[named].call(args, _recorded(command))
        sys.stdout.flush()
        return code
    except Exception:
        raise_if_stopped()  # an interrupted import may claim that a module is broken
        raise
