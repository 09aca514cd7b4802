"""Flags of the command line from the declaration of the options: one for each field, with its meaning."""

import argparse
from typing import Final

import msgspec
from msgspec import inspect

from utilityvm.options.declare import descriptions
from utilityvm.options.lcow import OptionsLCOW

_SHORT: Final = {"memory_size_in_mb": "--memory", "processor_count": "--cpus"}
_METAVARS: Final = {int: "N", str: "TEXT"}


def add_option_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` a flag for every option that can be written down; what is not given stays out of the namespace."""
    group = parser.add_argument_group("options of the VM")
    meanings = descriptions(OptionsLCOW)
    for field in msgspec.structs.fields(OptionsLCOW):
        kind = _kind(field)
        if kind is None:
            continue
        names = [name for name in (_SHORT.get(field.name), "--" + field.name.replace("_", "-")) if name]
        action = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind, "metavar": _METAVARS[kind]}
        group.add_argument(*names, dest=field.name, default=argparse.SUPPRESS, help=meanings[field.name].replace("%", "%%"), **action)


def given_options(args: argparse.Namespace) -> dict[str, object]:
    """Return the options that were given as flags, by field name."""
    return {name: getattr(args, name) for name in OptionsLCOW.__struct_fields__ if hasattr(args, name)}


def _kind(field: msgspec.structs.FieldInfo) -> type | None:
    """The Python type of a field that one word on the command line can give."""
    match inspect.type_info(field.type):
        case inspect.Metadata(type=inner) | inner:
            pass
    for shape, kind in ((inspect.BoolType, bool), (inspect.IntType, int), (inspect.StrType, str)):
        if isinstance(inner, shape):
            return kind
    return None
