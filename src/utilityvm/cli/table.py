"""Rows of words in columns."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with each column as wide as its widest word, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)]


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print them."""
    print("\n".join(table(head, rows)))
