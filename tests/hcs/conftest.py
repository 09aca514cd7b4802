"""A host service for each test, which must have closed everything once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hcs.harness import StandIn, standin


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    r"""A working directory in which a file may be called ``C:\x``."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hcs(tmp_path: Path) -> Iterator[StandIn]:
    yield from standin(tmp_path)
