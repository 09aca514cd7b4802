"""Registries with a few images, shared by all tests, which change nothing in them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.registry import Registry, registry
from tests.unit.images.samples import Sample, tar
from utilityvm.images.skopeo import Access
from utilityvm.images.store import ImageStore, host_platform

HERE = host_platform().architecture
BIG = Sample(layers=tuple(tar({f"part{number}": os.urandom(2 << 20)}) for number in range(4)), architecture=HERE)
SMALL = Sample(architecture=HERE)
OTHER = Sample(architecture="s390x")
OPEN = Access(tls_verify=False)


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that lets everybody in."""
    with registry(tmp_path_factory.mktemp("registry")) as served:
        served.push_sample(SMALL, "small:1")
        served.push_sample(BIG, "big:1")
        served.push_sample(SMALL, "docker:1", "--format", "v2s2")
        served.push_platforms([OTHER, SMALL], "platforms:1")
        served.push_sample(OTHER, "other:1")
        yield served


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")
