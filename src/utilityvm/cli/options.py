"""`uvm options`: every option that there is, with its flag, its default on this host and its meaning."""

import argparse
import json
import textwrap
from typing import TYPE_CHECKING, Final

from utilityvm.cli.guests import GUESTS, Guest, add_guests

if TYPE_CHECKING:
    from utilityvm.options.declare import Option

_WIDTH: Final = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    add_guests(parser, _describe)


def _describe(parser: argparse.ArgumentParser, guest: Guest) -> None:
    parser.description = (
        f"Print every option of {guest.meaning}: its name in files and in Python, its type, its default on this host, its flag and its "
        "meaning."
    )
    parser.add_argument("--json", action="store_true", help="print a JSON Schema of options files instead, with the defaults on this host")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    guest = GUESTS[args.guest]
    if args.json:
        from utilityvm.options.schema import json_schema

        print(json.dumps(json_schema(guest.defaults()), indent=2))
    else:
        print("\n\n".join(_blocks(guest)))
    return 0


def _blocks(guest: Guest) -> list[str]:
    from utilityvm.options.declare import declared

    defaults = guest.defaults()
    return [_block(option, getattr(defaults, option.name)) for option in declared(guest.options).values()]


def _block(option: "Option", default: object) -> str:
    lines = [
        f"{option.name} = {_spelled(option, default)}",
        *textwrap.wrap(f"{option.meaning} {_flags(option)}", _WIDTH - 4, break_on_hyphens=False),
    ]
    return "\n    ".join(lines)


def _spelled(option: "Option", value: object) -> str:
    """Spell a value as a TOML file does; of a structure there is never a default."""
    word = next((word for word, number in option.words.items() if number == value), None)
    return "(none)" if value is None else json.dumps(word or value, ensure_ascii=True)


def _flags(option: "Option") -> str:
    if option.kind is bool:
        return f"Flags: {option.flag}, --no-{option.flag[2:]}."
    if not option.spoken:
        return "Only in files and in Python: no one word can give it."
    names = ["--" + option.short] * bool(option.short) + [option.flag]
    more = ", once for each" if option.items else ""
    return f"Flag: {', '.join(names)} {'|'.join(option.words) or option.value}{more}."
