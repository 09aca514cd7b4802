"""A real distribution, through all that an image goes through."""

import time
from pathlib import Path

import pytest

from tests.images.conftest import OPEN
from tests.images.debian import debian_tar
from tests.images.registry import Registry
from tests.unit.images.samples import nobodys
from utilityvm.images.store import ImageStore

AGAIN = 0.1
"""Seconds in which an image is imported that is here."""


@pytest.fixture(scope="module")
def debian() -> Path:
    return debian_tar()


async def test_debian_goes_to_a_registry_and_comes_back_as_it_was(debian: Path, hub: Registry, store: ImageStore, tmp_path: Path) -> None:
    image = store.import_(debian, "debian:12")
    with (tmp_path / "debian.tar").open("wb") as file:
        store.export("debian:12", file)
    begin = time.perf_counter()
    assert store.import_(tmp_path / "debian.tar", "again").digest == image.digest
    assert time.perf_counter() - begin < AGAIN
    hub.push(f"oci-archive:{tmp_path / 'debian.tar'}", "debian:12", "--preserve-digests")
    other = ImageStore(tmp_path / "other")
    pulled = await other.pull(f"{hub.address}/debian:12", access=OPEN)
    assert (pulled.digest, pulled.id) == (image.digest, image.id)
    (layer,), (same,) = image.layers, pulled.layers
    assert layer.read_bytes() == same.read_bytes()
    assert nobodys(other) == []
