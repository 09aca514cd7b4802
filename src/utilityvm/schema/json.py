"""The JSON law of HCS, for every struct of this package: Go's encoder, byte for byte.

Members stand in the order of declaration and map keys are sorted. A member at its zero (0, false, empty text, list or map, None)
is not written; a present object is, even when it is empty. Three sorts of members differ: those that stay `UNSET` are not written
and their zero is; those that have a factory for a plain zero are always written; a `Raw` member is written as it was told, in its
own order. Numbers reach 64 bits. What Go escapes is in `kit.gojson`.
"""

from json import JSONEncoder, loads
from typing import Any, TypeVar

import msgspec

from utilityvm.kit.errors import HostError, InvalidOptions, Unsupported
from utilityvm.kit.gojson import as_go

T = TypeVar("T")


def _raw(value: object) -> object:
    assert isinstance(value, msgspec.Raw)  # noqa: S101 (nothing else is left by to_builtins)
    return loads(bytes(value))


_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False, default=_raw, allow_nan=False).encode


def encode(document: object) -> str:
    """Encode a document, a part of one or plain builtins as Go does.

    Raises:
        InvalidOptions: a number that JSON does not have: not a number, or infinite.
    """
    try:
        return as_go(_encode(msgspec.to_builtins(document, order="deterministic", builtin_types=(msgspec.Raw,))))
    except ValueError as error:
        raise InvalidOptions(f"document: {error}") from error


def decode(text: str | bytes, kind: type[T]) -> T:
    """Decode a document or a part of one as the struct `kind`.

    Raises:
        InvalidOptions: not JSON, or a member of the wrong type; the message has its path.
        Unsupported: a member that our structs do not know; it would be ignored otherwise.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        message = f"document: {error}"
        raise (Unsupported if "unknown field" in message else InvalidOptions)(message) from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidOptions(f"document: {error}") from error


def decode_answer(text: str | bytes, kind: type[T]) -> T:
    """Decode what the host service tells. As Go reads it: what is null was not told, and a null answer has told nothing.

    Raises:
        HostError: not JSON, or a member of the wrong type; the message has its path.
    """
    try:
        told = msgspec.json.decode(text)
        return kind() if told is None else msgspec.json.decode(msgspec.json.encode(_without_nulls(told)), type=kind)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise HostError(f"the host service's answer is no {kind.__name__}: {error}") from error


def _without_nulls(told: object) -> object:
    if isinstance(told, dict):
        return {name: _without_nulls(value) for name, value in told.items() if value is not None}
    return [_without_nulls(value) for value in told] if isinstance(told, list) else told


def json_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a document or a part of one, for editors and programs."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(kind, schema_hook=_anything)}


def _anything(kind: type) -> dict[str, Any]:
    assert kind is object  # noqa: S101 (every other type is known)
    return {"description": "Whatever the resource takes."}
