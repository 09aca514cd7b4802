"""Text from a guest, made fit to be shown."""


def printable(text: str) -> str:
    r"""Return `text` with everything escaped that could steer a terminal, begin a line or break an encoding, e.g. ``\x1b[2J``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
