"""Flags of the command line from the declaration of the options: one for each field, with its meaning, and a file for all of them."""

import argparse
from typing import Any, Final

import msgspec

from utilityvm.kit.errors import InvalidOptions
from utilityvm.options.declare import Option, declared
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.shared import Options
from utilityvm.options.text import OptionsFile
from utilityvm.options.wcow import OptionsWCOW
from utilityvm.vm.host_options import options_of, read_options_file

OPTIONS_GROUP: Final = "options of the VM"
"""Title of the flags' group, in every verb that has them."""

_LONGEST_VALUE: Final = 40  # of what is repeated of a flag's value


class Words(msgspec.Struct, frozen=True):
    """Takes a flag's value that is one of some words, or a number behind them, which the rules judge."""

    words: tuple[str, ...]

    def __call__(self, text: str) -> int | str:
        """Return the word as it is, or the number.

        Raises:
            ArgumentTypeError: neither a known word nor a number.
        """
        if text in self.words:
            return text
        try:
            return int(text)
        except ValueError as error:
            choices = ", ".join(self.words)
            raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (choose from {choices}, or the number of one)") from error


class Whole(msgspec.Struct, frozen=True):
    """Takes a flag's value that is a whole number, in `unit`."""

    unit: str

    def __call__(self, text: str) -> int:
        """Return the number.

        Raises:
            ArgumentTypeError: it is none.
        """
        try:
            return int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text[:_LONGEST_VALUE]!r} is not a whole number{self.unit}") from error


def add_option_flags(parser: argparse.ArgumentParser, options: type[Options] = OptionsLCOW, *, short: bool = True) -> None:
    """Give `parser` a flag for every option that one word can give, and `--options`; what is not given stays out of the namespace.

    `short` adds the shorter names, which a verb may need for something else.
    """
    verb = f"`uvm options {'wcow' if options is OptionsWCOW else 'lcow'}`"
    group = parser.add_argument_group(OPTIONS_GROUP, f"Flags win over the file. {verb} prints their defaults on this host.")
    group.add_argument("--options", metavar="FILE", help=f"read options from this TOML or JSON file, by their names in {verb}")
    for option in declared(options).values():
        if not option.spoken:
            continue  # a file or Python can give it
        names = ["--" + option.short] * bool(option.short and short) + [option.flag]
        group.add_argument(*names, dest=option.name, default=argparse.SUPPRESS, help=option.meaning.replace("%", "%%"), **_taking(option))


def _taking(option: Option) -> dict[str, Any]:
    if option.words:
        return {"type": Words(tuple(option.words)), "metavar": "|".join(option.words)}
    if option.kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if option.items:
        return {"action": "append", "metavar": option.value}
    if option.kind is int:
        return {"type": Whole(" of MiB" if option.name.endswith("_in_mb") else ""), "metavar": option.value}
    return {"type": option.kind, "metavar": option.value}


def given_options(args: argparse.Namespace, options: type[Options] = OptionsLCOW) -> dict[str, object]:
    """Return the options that were given as flags, by field name."""
    return {name: getattr(args, name) for name in options.__struct_fields__ if hasattr(args, name)}


def given_file(args: argparse.Namespace) -> OptionsFile | None:
    """Return what the file of `--options` says; None without one.

    Raises:
        UtilityVMError: it cannot be read, or is no options file.
    """
    if args.options == "":
        raise InvalidOptions("--options: the file's name is empty")
    return None if args.options is None else read_options_file(args.options)


def wanted_options(args: argparse.Namespace, **usual: object) -> OptionsLCOW:
    """Return the options of a Linux VM on this host: its defaults, then `usual`, then the file's, then the flags'.

    Raises:
        InvalidOptions: it is to be forked: a command has no call for that.
        UtilityVMError: the file cannot be read, or the options are wrong.
    """
    file = given_file(args)
    unsaid = {name: value for name, value in usual.items() if file is None or name not in file.values}
    options = options_of(unsaid | given_options(args), file)
    if options.forkable:
        raise InvalidOptions(
            "forkable: the VM ends with its command and nobody forks it", hint="VMs are forked from Python: UtilityVM.fork"
        )
    return options
