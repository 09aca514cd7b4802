r"""What Go's JSON encoder spells otherwise than Python's encoders do.

Go escapes ``<``, ``>``, ``&`` and the line separators U+2028 and U+2029, spells the control characters that have no short
form of its own as ``\u00xx``, and writes ``\ufffd`` for each byte that is not UTF-8.
"""

import re

# Escapes that Python writes and Go does not, and an escaped backslash, so that a letter after it is left alone; then characters
# that Go escapes; then lone surrogates, which is how Python holds bytes that are not UTF-8.
_DIFFERENT = re.compile(r"\\[\\bf]|[<>&\u2028\u2029\ud800-\udfff]")
_PYTHON_ONLY = {r"\b": r"\u0008", r"\f": r"\u000c"}


def as_go(text: str) -> str:
    """Return a JSON text that a Python encoder wrote without blanks as Go would have written it."""
    return _DIFFERENT.sub(_as_go, text)


def _as_go(found: re.Match[str]) -> str:
    text = found[0]
    if text[0] == "\\":
        return _PYTHON_ONLY.get(text, text)
    return r"\ufffd" if "\ud800" <= text <= "\udfff" else f"\\u{ord(text):04x}"
