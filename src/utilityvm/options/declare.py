"""What one option is: a field, its meaning and its Go name, said once; documentation and flags derive from it."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Annotated, get_args, get_origin, get_type_hints

import msgspec


def option(description: str, *, go: str = "") -> msgspec.Meta:
    """Declare an option: what it means, and the name hcsshim gives it; ``""`` for an option that is only ours."""
    return msgspec.Meta(description=description, extra={"go": go})


@cache
def go_names(options: type[msgspec.Struct]) -> Mapping[str, str]:
    """Return each field's Go name, in the order of declaration; options without one are left out."""
    return MappingProxyType({name: go for name, meta in _declarations(options).items() if (go := str((meta.extra or {})["go"]))})


@cache
def descriptions(options: type[msgspec.Struct]) -> Mapping[str, str]:
    """Return each field's meaning, in the order of declaration."""
    return MappingProxyType({name: meta.description or "" for name, meta in _declarations(options).items()})


def _declarations(options: type[msgspec.Struct]) -> dict[str, msgspec.Meta]:
    hints = get_type_hints(options, include_extras=True)
    return {name: _meta(name, hints[name]) for name in options.__struct_fields__}


def _meta(name: str, hint: object) -> msgspec.Meta:
    declared = [part for part in get_args(hint)[1:] if isinstance(part, msgspec.Meta)] if get_origin(hint) is Annotated else []
    if len(declared) != 1:
        raise TypeError(f"{name}: an option is declared by exactly one option(...)")
    return declared[0]
