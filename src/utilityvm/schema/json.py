r"""The JSON law of HCS documents, for every struct of this package: Go's encoder, byte for byte.

Members stand in the order of declaration, those that hold their zero value are left out (a present object is written even
when it is empty), map keys are sorted. Go escapes ``<``, ``>``, ``&`` and the line separators U+2028 and U+2029, spells the
control characters that have no short form of its own as ``\u00xx``, and writes ``\ufffd`` for each byte that is not UTF-8.
"""

import re
from json import JSONEncoder
from typing import TypeVar

import msgspec

from utilityvm.kit.errors import InvalidOptions, Unsupported

T = TypeVar("T")

_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
# Escapes that Python writes and Go does not, found whole so that an escaped backslash before a letter is left alone; then
# characters that Go escapes; then lone surrogates, which is how Python holds bytes that are not UTF-8.
_DIFFERENT = re.compile(r"\\.|[<>&\u2028\u2029\ud800-\udfff]", re.DOTALL)
_PYTHON_ONLY = {r"\b": r"\u0008", r"\f": r"\u000c"}


def encode(document: object) -> str:
    """Encode a document, a part of one or plain builtins as Go does."""
    return _DIFFERENT.sub(_as_go, _encode(msgspec.to_builtins(document, order="deterministic")))


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


def _as_go(found: re.Match[str]) -> str:
    text = found[0]
    if text[0] == "\\":
        return _PYTHON_ONLY.get(text, text)
    return r"\ufffd" if "\ud800" <= text <= "\udfff" else f"\\u{ord(text):04x}"
