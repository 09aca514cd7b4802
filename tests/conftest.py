"""For every test: Ctrl-C counts, also where whoever started the tests ignores it, as a shell does for what it runs in the background; and a
command that ran in the test's own process leaves nobody who writes to the test's streams.
"""

import logging
import signal
from collections.abc import Iterator

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_handler_stays() -> Iterator[None]:
    before = list(logging.root.handlers)
    yield
    for handler in logging.root.handlers[:]:
        if type(handler) is logging.StreamHandler and handler not in before:
            logging.root.removeHandler(handler)
