"""A host service for each test, which must have closed everything once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hcs.harness import StandIn, standin


@pytest.fixture
def hcs(tmp_path: Path) -> Iterator[StandIn]:
    yield from standin(tmp_path)
