"""Text from a guest, made fit to be shown."""

from typing import Final

LONGEST: Final = 4096
"""Characters of a guest's text in an error."""


def printable(text: str, limit: int | None = None) -> str:
    r"""Return `text` with everything escaped that could steer a terminal, begin a line or break an encoding, e.g. ``\x1b[2J``.

    With `limit` it is cut after so many characters.
    """
    whole = text
    if limit is not None:
        text = text[:limit]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if limit is not None and (len(text) > limit or len(whole) > limit):
        text = text[: limit - 1] + "…"
    return text
