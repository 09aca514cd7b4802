"""Cases that one lane shows for all: neither the user nor the kernel changes what comes of them, and another case shows what both do."""

from collections.abc import Iterator

import pytest


def once(*cases: object) -> Iterator[object]:
    """Mark parameters of a test, each a value or a tuple of values."""
    for case in cases:
        yield pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.once)
