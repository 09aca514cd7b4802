"""A container is the same container, whoever keeps the guest connection, and with a fake guest as with a real one."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.containers.rig import LAYERS, SIZE, a_vm

from utilityvm import Container, UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.files import load
from utilityvm.images.store import ImageStore
from utilityvm.store.layout import Layout
from utilityvm.testing.conformance_containers import CASES, ContainerDriver, What

FAKE = {What.SLEEP: ["forever"], What.SAY: ["three"], What.COPY: ["cat"], What.MISSING: ["missing"]}
REAL = {
    What.SLEEP: ["sleep", "1000"],
    What.SAY: ["sh", "-c", "printf hello; exit 3"],
    What.COPY: ["cat"],
    What.MISSING: ["/missing"],
}


class Driver:
    def __init__(self, vm: UtilityVM, programs: dict[What, list[str]], layers: Sequence[str | Path], scratch: int) -> None:
        self.vm, self._programs, self._layers, self._scratch = vm, programs, layers, scratch

    async def create(self, name: str, what: What) -> Container:
        process = {"args": self.program(what), "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]}
        linux = {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network", "cgroup")]}
        mounts = [{"destination": "/proc", "type": "proc", "source": "proc"}]  # crun runs no further process without
        spec: dict[str, Any] = {"ociVersion": "1.0.2", "process": process, "linux": linux, "mounts": mounts}
        return await self.vm.create_container(name, spec, layers=self._layers, scratch_size_in_bytes=self._scratch)

    def program(self, what: What) -> list[str]:
        return self._programs[what]


@asynccontextmanager
async def fake(folder: Path, *, external: bool) -> AsyncIterator[ContainerDriver]:
    async with a_vm(folder, external_guest_connection=external) as world:
        yield Driver(world.vm, FAKE, LAYERS, SIZE)


def busybox(folder: Path) -> tuple[Path, Sequence[Path]]:
    """The boot files, and the layers of the image that comes with them, which all may read."""
    files = load(Layout.of_user().boot_files).folder
    folder.chmod(0o755)
    return files, ImageStore(folder, {"busybox": files / "busybox.tar"}).get("busybox").layers


@asynccontextmanager
async def real(folder: Path, *, external: bool) -> AsyncIterator[ContainerDriver]:
    files, layers = busybox(folder)
    options = default_options_lcow(boot_files_path=str(files), memory_size_in_mb=384, processor_count=1, external_guest_connection=external)
    async with await create_lcow(options) as vm:
        await vm.start()
        yield Driver(vm, REAL, layers, SIZE)


@pytest.mark.parametrize("external", [True, False], ids=["our connection", "the driver's connection"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_on_a_fake_guest(case: Callable[[ContainerDriver], Awaitable[None]], tmp_path: Path, *, external: bool) -> None:
    async with fake(tmp_path, external=external) as driver:
        await case(driver)


@pytest.mark.vm
@pytest.mark.parametrize("external", [True, False], ids=["our connection", "the driver's connection"])
async def test_on_a_real_guest(tmp_path: Path, *, external: bool) -> None:
    async with real(tmp_path, external=external) as driver:
        for case in CASES:
            await case(driver)
