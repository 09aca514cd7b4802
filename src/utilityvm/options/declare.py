"""What one option is: a field with its meaning and its names, said once; flags, files, documentation and schema derive from it."""

from collections.abc import Mapping
from enum import IntEnum
from functools import cache
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

_VALUES: Final = {bool: "", int: "N", str: "TEXT"}


class Option(msgspec.Struct, frozen=True):
    """A declared option.

    `kind` is `bool`, `int`, `str`, a struct of further fields, or `tuple` for a list of `items` (text, words or structs); `optional`
    says whether it may be None. `go` is hcsshim's name, or ``""``. `short` is a second, shorter name of the flag without its
    hyphens, or ``""``. `value` is what usage calls its value. `words` are names for its numbers, each at its number; none: any
    number may be meant.
    """

    name: str
    kind: type
    default: object
    meaning: str
    go: str
    short: str
    value: str
    words: Mapping[str, int]
    optional: bool
    items: tuple[type, ...] = ()

    @property
    def spoken(self) -> bool:
        """Whether words of a command line can give it; the others are given in files and in Python."""
        return self.kind in _VALUES or self.items == (str,)

    @property
    def flag(self) -> str:
        """The long flag, with its hyphens."""
        return "--" + self.name.replace("_", "-")


def option(description: str, *, go: str = "", short: str = "", value: str = "", words: type[IntEnum] | None = None) -> msgspec.Meta:
    """Declare an option; see `Option` for the parts. The words are the lower-case names of an enumeration."""
    return msgspec.Meta(description=description, extra={"go": go, "short": short, "value": value, "words": words})


@cache
def declared(options: type[msgspec.Struct]) -> Mapping[str, Option]:
    """Return every option of a struct by its name, in the order of declaration."""
    hints = get_type_hints(options, include_extras=True)
    return MappingProxyType({field.name: _option(field, hints[field.name]) for field in msgspec.structs.fields(options)})


def go_names(options: type[msgspec.Struct]) -> Mapping[str, str]:
    """Return each field's Go name, in the order of declaration; options without one are left out."""
    return {name: found.go for name, found in declared(options).items() if found.go}


def _option(field: msgspec.structs.FieldInfo, hint: object) -> Option:
    metas = [part for part in get_args(hint)[1:] if isinstance(part, msgspec.Meta)] if get_origin(hint) is Annotated else []
    if len(metas) != 1:
        raise TypeError(f"{field.name}: an option is declared by exactly one option(...)")
    inner, extra = get_args(hint)[0], metas[0].extra or {}
    kinds = [part for part in _parts(inner) if part is not type(None)]
    kind, items, words = kinds[0], (), extra["words"]
    if get_origin(kind) is tuple:
        kind, items = tuple, _parts(get_args(kind)[0])
    return Option(
        name=field.name,
        kind=kind,
        default=field.default,
        meaning=metas[0].description or "",
        go=extra["go"],
        short=extra["short"],
        value=extra["value"] or _VALUES.get(kind, ""),
        words=MappingProxyType({member.name.lower(): int(member) for member in words} if words else {}),
        optional=type(None) in _parts(inner),
        items=items,
    )


def _parts(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401 (any annotation)
    return get_args(hint) if get_origin(hint) in {Union, UnionType} else (hint,)
