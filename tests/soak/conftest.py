"""Campaigns that take long, for `make soak`. What they measured goes into the file of their name in `docs/measurements`."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from utilityvm import UtilityVM, create_lcow, default_options_lcow

MEASUREMENTS = Path(__file__).parents[2] / "docs" / "measurements"

Record = Callable[[str, dict[str, object]], None]


@pytest_asyncio.fixture
async def vm() -> AsyncIterator[UtilityVM]:
    """A running VM."""
    async with await create_lcow(default_options_lcow(memory_size_in_mb=256, processor_count=1)) as machine:
        await machine.start()
        yield machine


@pytest.fixture
def record() -> Record:
    """Keep what a campaign measured, under the campaign's name."""

    def keep(name: str, measured: dict[str, object]) -> None:
        text = msgspec.json.format(msgspec.json.encode(measured), indent=2)
        (MEASUREMENTS / f"soak-{name}.json").write_bytes(text + b"\n")
        print(name, measured)

    return keep
