"""Values of flags that are more than text, for argparse."""

import argparse
import math
from contextlib import suppress


def seconds(word: str) -> float:
    """Return a time that a flag was given."""
    with suppress(ValueError):
        if 0 < (number := float(word)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"{word!r} is not a positive number of seconds")
