"""Command lines as data, read from argparse: what completion scripts, the reference page and the manual page are made of."""

import argparse
from collections.abc import Iterator
from typing import Any

import msgspec

from utilityvm.cli.flags import Words


class Argument(msgspec.Struct, frozen=True):
    """A flag, or a positional argument, which has no `names`.

    `value` is what usage calls its value, ``""`` when it takes none; `choices` are the words that the value may be, none: any.
    `group` is the title of its group. `rest` says that it takes all that is left of the command line.
    """

    names: tuple[str, ...]
    value: str
    meaning: str
    choices: tuple[str, ...]
    group: str
    rest: bool


class Command(msgspec.Struct, frozen=True):
    """A verb with its arguments and the verbs below it; `path` is all its words, beginning with the program's."""

    path: tuple[str, ...]
    purpose: str
    description: str
    arguments: tuple[Argument, ...]
    commands: tuple["Command", ...]

    @property
    def flags(self) -> tuple[Argument, ...]:
        """The arguments that have names."""
        return tuple(argument for argument in self.arguments if argument.names)

    @property
    def positionals(self) -> tuple[Argument, ...]:
        """The arguments that have none."""
        return tuple(argument for argument in self.arguments if not argument.names)

    def walk(self) -> Iterator["Command"]:
        """Yield the command and all below it, each before those below it."""
        yield self
        for command in self.commands:
            yield from command.walk()


def describe(parser: argparse.ArgumentParser, purpose: str = "", path: tuple[str, ...] = ()) -> Command:
    """Read a parser and those below it. argparse has no public way to be read; this is the one place that knows its private one."""
    path = path or (parser.prog,)
    arguments, commands = list[Argument](), list[Command]()
    for group in parser._action_groups:  # noqa: SLF001
        for action in group._group_actions:  # noqa: SLF001
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
                purposes = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
                commands += [describe(verb, purposes[name], (*path, name)) for name, verb in action.choices.items()]
            else:
                arguments.append(_argument(action, parser, group.title or ""))
    return Command(path, purpose, parser.description or f"{purpose[:1].upper()}{purpose[1:]}.", tuple(arguments), tuple(commands))


def _argument(action: argparse.Action, parser: argparse.ArgumentParser, group: str) -> Argument:
    return Argument(
        names=tuple(action.option_strings),
        value="" if action.nargs == 0 else _value(action),
        meaning=parser._get_formatter()._expand_help(action) if action.help else "",  # noqa: SLF001
        choices=_choices(action),
        group=group,
        rest=action.nargs == argparse.REMAINDER,
    )


def _value(action: argparse.Action) -> str:
    return str(action.metavar or "|".join(_choices(action)) or action.dest.upper())


def _choices(action: argparse.Action) -> tuple[str, ...]:
    kind: Any = action.type
    return kind.words if isinstance(kind, Words) else tuple(map(str, action.choices or ()))
