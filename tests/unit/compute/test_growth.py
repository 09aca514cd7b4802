"""Memory that comes and goes, with a QEMU that does as this test says: a guest that takes it, one that does not, and refusals."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast, final

import pytest

from utilityvm.compute.qemu import growth as module
from utilityvm.compute.qemu.growth import Growth
from utilityvm.kit.errors import DeadlineExceeded, InvalidOptions, QmpError, Unsupported

if TYPE_CHECKING:
    from utilityvm.compute.qemu.monitor import Monitor

MIB = 1 << 20


@final
class Qemu:
    """What `Growth` needs of a `Monitor`. The guest has what was asked for at once, but no more than `takes` MiB."""

    def __init__(self, takes: int = 1 << 20) -> None:
        self.memory_changed = asyncio.Event()
        self.takes, self.size, self.refuses = takes, 0, ""
        self.said: list[tuple[str, Any]] = []

    async def execute(self, command: str, arguments: Mapping[str, Any]) -> object:
        if command == self.refuses:
            raise QmpError("no", error_class="GenericError", command=command)
        self.said.append((command, arguments.get("value", arguments.get("id"))))
        if command == "qom-set":
            asyncio.get_running_loop().call_soon(self._guest, arguments["value"])
        return self.size if command == "qom-get" else {}

    def _guest(self, wanted: int) -> None:
        self.size = min(wanted, self.takes * MIB)
        self.memory_changed.set()


def growth(qemu: Qemu, *, locked: bool = False) -> Growth:
    return Growth(cast("Monitor", qemu), "vm x", 256, ("bridge2", 18), locked=locked)


async def test_the_device_comes_with_the_first_growth_and_stays() -> None:
    qemu = Qemu()
    memory = growth(qemu)
    for mib in (512, 512, 1024, 256):
        await memory.resize(mib)
        assert memory.total_mb == mib
    assert [said for said in qemu.said if said[0] in {"object-add", "device_add"}] == [
        ("object-add", "memory0-memory"),
        ("device_add", "memory0"),
    ]
    assert [value // MIB for command, value in qemu.said if command == "qom-set"] == [256, 768, 0]


async def test_a_guest_that_takes_only_a_part_has_what_it_had_and_the_error_says_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROWTH_TIMEOUT", 0.05)
    qemu = Qemu(takes=100)
    memory = growth(qemu)
    with pytest.raises(DeadlineExceeded, match="the guest has 100 of the 256 MiB beyond the 256"):
        await memory.resize(512)
    assert memory.total_mb == 256
    assert qemu.said[-1] == ("qom-set", 0)
    await memory.resize(300)
    assert memory.total_mb == 300


async def test_a_caller_that_gives_up_leaves_what_there_was() -> None:
    qemu = Qemu(takes=0)
    memory = growth(qemu)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await memory.resize(512)
    assert (memory.total_mb, qemu.said[-1]) == (256, ("qom-set", 0))


async def test_a_device_that_qemu_refuses_leaves_nothing() -> None:
    qemu = Qemu()
    qemu.refuses = "device_add"
    memory = growth(qemu)
    with pytest.raises(QmpError):
        await memory.resize(512)
    assert qemu.said == [("object-add", "memory0-memory"), ("object-del", "memory0-memory")]
    qemu.refuses = ""
    await memory.resize(512)
    assert memory.total_mb == 512


async def test_what_cannot_be_is_refused_before_qemu_is_asked() -> None:
    qemu = Qemu()
    memory = growth(qemu)
    with pytest.raises(Unsupported, match="254 MiB: is less than the 256 MiB that the machine was booted with"):
        await memory.resize(254)
    with pytest.raises(InvalidOptions, match="257 MiB: .* by multiples of 2"):
        await memory.resize(257)
    with pytest.raises(Unsupported, match="the machine can have at most"):
        await memory.resize(1 << 30)
    with pytest.raises(Unsupported, match="AllowOvercommit false"):
        await growth(qemu, locked=True).resize(512)
    await growth(qemu, locked=True).resize(256)
    assert qemu.said == []
