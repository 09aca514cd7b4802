"""Values as they were given, held to the declaration of a struct: which of them it takes, and what is wrong with the others."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from utilityvm.kit.errors import Problem
from utilityvm.options.declare import Option, declared

MAX_PROBLEMS: Final = 64
"""Most problems that are told of one wish."""

MAX_DEPTH: Final = 16
"""Most names in a path, as a template's options may name another template."""

_LONGEST_NAME: Final = 64  # of a stranger, in messages
_PLAIN_NAME: Final = re.compile(r"[\w-]{1,64}")
_KINDS: Final = {bool: "true or false", int: "an integer", str: "text"}


def taken(given: Mapping[str, object], kind: type[msgspec.Struct], path: str) -> tuple[dict[str, object], list[Problem]]:
    """Return the fields of a struct that can be taken as they were given, and what is wrong with the others."""
    options, good, problems = declared(kind), dict[str, object](), list[Problem]()
    for name, value in given.items():
        here = path_of(path, name)
        if (option := options.get(name)) is None:
            problems.append(Problem(here, "unknown", _stranger(str(name), options)))
        elif isinstance(kept := _value(option, value, here), _Wrong):
            problems += kept.problems
        else:
            good[name] = kept
        if len(problems) >= MAX_PROBLEMS:
            break
    missing = [name for name, option in options.items() if option.default is msgspec.NODEFAULT and name not in given]
    return good, problems + [Problem(f"{path}.{name}", "missing", "must be given") for name in missing]


class _Wrong:
    """In place of a value: what is wrong with it."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems


def _value(option: Option, value: object, path: str) -> object:
    """Return the value as the option takes it, or a `_Wrong`."""
    if option.items:
        return _list(option.items, value, path)
    if issubclass(option.kind, msgspec.Struct):
        return _struct(option, option.kind, value, path)
    if option.words and isinstance(value, str):
        words = " or ".join(f"{word} ({number})" for word, number in option.words.items())
        return option.words.get(value, _Wrong(Problem(path, "word", f"must be {words}")))
    if not isinstance(value, option.kind) or (option.kind is int and isinstance(value, bool)):
        return _Wrong(Problem(path, "type", f"must be {_KINDS[option.kind]}, not {_called(value)}"))
    if isinstance(value, str):
        return _text(value, path)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value  # the number of an enumeration's member


def _text(value: str, path: str) -> object:
    """Neither a path nor a kernel's command line can have these; bytes that are not UTF-8 are good for a path."""
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return _Wrong(Problem(path, "text", "must not have half of a surrogate pair"))
    return _Wrong(Problem(path, "text", "must not have a NUL character")) if "\0" in value else value


def _struct(option: Option, kind: type[msgspec.Struct], value: object, path: str) -> object:
    if isinstance(value, kind) or (value is None and option.optional):
        return value
    if not isinstance(value, Mapping):
        return _Wrong(Problem(path, "type", f"must be a table, not {_called(value)}"))
    if path.count(".") > MAX_DEPTH:
        return _Wrong(Problem(path, "depth", "is nested too deeply"))
    good, problems = taken(value, kind, path)
    return _Wrong(*problems) if problems else msgspec.convert(good, kind)


def _list(items: tuple[type, ...], value: object, path: str) -> object:
    if not isinstance(value, list | tuple):
        return _Wrong(Problem(path, "type", f"must be a list, not {_called(value)}"))
    kept = [_item(items, item, f"{path}[{place}]") for place, item in enumerate(value)]
    problems = [problem for item in kept if isinstance(item, _Wrong) for problem in item.problems]
    return _Wrong(*problems) if problems else tuple(kept)


def _item(items: tuple[type, ...], value: object, path: str) -> object:
    if issubclass(items[0], msgspec.Struct):
        return _tagged(items, value, path)
    if not isinstance(value, str):
        return _Wrong(Problem(path, "type", f"must be text, not {_called(value)}"))
    if not issubclass(items[0], StrEnum):
        return _text(value, path)
    return items[0](value) if value in set(items[0]) else _Wrong(Problem(path, "word", f"must be one of {', '.join(items[0])}"))


def _tagged(kinds: tuple[type[msgspec.Struct], ...], value: object, path: str) -> object:
    """One of several structs, told by its `type`."""
    if isinstance(value, kinds):
        return value
    if not isinstance(value, Mapping):
        return _Wrong(Problem(path, "type", f"must be a table, not {_called(value)}"))
    of = {str(kind.__struct_config__.tag): kind for kind in kinds}
    if (kind := of.get(str(value.get("type")))) is None:
        return _Wrong(Problem(f"{path}.type", "word", f"must be {' or '.join(of)}"))
    good, problems = taken({name: given for name, given in value.items() if name != "type"}, kind, path)
    return _Wrong(*problems) if problems else kind(**good)


def _called(value: object) -> str:
    """Say what sort of thing a value is; never the value, which may be of any length."""
    known = {**_KINDS, float: "a number with a point", type(None): "null", list: "a list", tuple: "a list", dict: "a table"}
    return known.get(type(value), f"a {type(value).__name__}")


def path_of(path: str, name: object) -> str:
    """Return the path of a name below another path."""
    word = str(name)
    return f"{path}.{word}" if _PLAIN_NAME.fullmatch(word) else f"{path}[{word[:_LONGEST_NAME]!a}]"


def _stranger(name: str, options: Mapping[str, Option]) -> str:
    """Say that no option has the name, and which was probably meant: another spelling, hcsshim's name, a flag, a typing error."""
    from difflib import get_close_matches  # noqa: PLC0415  # only where something is wrong

    plain = _plainly(name)
    meant = [known for known, option in options.items() if plain in {_plainly(known), _plainly(option.short)}]
    meant = meant or get_close_matches(name[:_LONGEST_NAME], options, n=1)
    return "is not an option" + (f"; did you mean {meant[0]}?" if meant else "")


def _plainly(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
