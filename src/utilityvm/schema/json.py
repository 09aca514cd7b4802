"""The JSON law of HCS documents, for every struct of this package: Go's encoder, byte for byte.

Members stand in the order of declaration, those that hold their zero value are left out (a present object is written even
when it is empty), map keys are sorted. What Go escapes is in `kit.gojson`.
"""

from json import JSONEncoder
from typing import TypeVar

import msgspec

from utilityvm.kit.errors import InvalidOptions, Unsupported
from utilityvm.kit.gojson import as_go

T = TypeVar("T")

_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def encode(document: object) -> str:
    """Encode a document, a part of one or plain builtins as Go does."""
    return as_go(_encode(msgspec.to_builtins(document, order="deterministic")))


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
