"""The probe against programs that say what a QEMU would say."""

import os
import sys
import time
from pathlib import Path

import pytest

from utilityvm.compute.qemu import probe as module
from utilityvm.compute.qemu.facts import Accel
from utilityvm.compute.qemu.probe import Verdict, find_qemu, kvm_verdict, probe, qemu_version
from utilityvm.compute.qemu.service import QemuService
from utilityvm.kit.errors import HostError, InvalidOptions, NotFound, Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.schema.document import (
    Chipset,
    ComputeSystem,
    LinuxKernelDirect,
    Memory,
    Processor,
    Topology,
    VirtualMachine,
)

BOOTS = "say('Kernel panic - not syncing: VFS: Unable to mount root fs')"


class Fake:
    """A QEMU of a few lines, which counts its boots."""

    def __init__(self, folder: Path) -> None:
        self.path, self.cache, self.device, self.kernel = folder / "qemu", folder / "cache", folder / "kvm", folder / "vmlinux"
        self._calls = folder / "calls"
        self.device.touch()
        self.kernel.touch()

    def does(self, *, version: str = "QEMU emulator version 7.2.22 (Debian 1:7.2)", boot: str = BOOTS) -> None:
        self.path.write_text(
            f"""#!{sys.executable}
import os, sys, time
def call(letter):
    with open({str(self._calls)!r}, "a") as file: file.write(letter)
if "--version" in sys.argv:
    call("v"); print({version!r}); sys.exit()
if "-L" in sys.argv: sys.exit()
call("b")
fd = next(int(word.rpartition("=")[2]) for word in sys.argv if ",fd=" in word)
def say(text): os.write(fd, text.encode() + b"\\n")
{boot}
"""
        )
        self.path.chmod(0o755)

    @property
    def calls(self) -> str:
        return self._calls.read_text() if self._calls.exists() else ""

    async def verdict(self, *, anew: bool = False) -> Verdict:
        return await kvm_verdict(self.path, self.kernel, self.cache, self.device, anew=anew)


@pytest.fixture
def qemu(tmp_path: Path) -> Fake:
    fake = Fake(tmp_path)
    fake.does()
    return fake


async def test_a_kernel_that_boots_is_the_proof_of_kvm(qemu: Fake) -> None:
    assert await qemu.verdict() == Verdict(accel=Accel.KVM, reason="a guest kernel booted under KVM")


@pytest.mark.parametrize(
    ("boot", "says"),
    [
        ("sys.exit('KVM: emulation failure')", "KVM: emulation failure"),
        ("say('early')", "early"),
        ("pass", "it ended with 0"),
        (f"{BOOTS}; sys.exit(3)", "Kernel panic"),
        ("os.kill(os.getpid(), 9)", "it ended with -9"),
    ],
)
async def test_anything_less_is_emulation_with_the_reason(qemu: Fake, boot: str, says: str) -> None:
    qemu.does(boot=boot)
    verdict = await qemu.verdict()
    assert verdict.accel is Accel.TCG
    assert verdict.reason.startswith("KVM is there but does not work: ")
    assert says in verdict.reason


async def test_a_hanging_guest_is_killed_in_time(qemu: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KVM_TRIAL", 1.0)
    qemu.does(boot="open(__file__ + '.pid', 'w').write(str(os.getpid())); say('early'); time.sleep(60)")
    start = time.monotonic()
    verdict = await qemu.verdict()
    assert time.monotonic() - start < 3
    assert verdict == Verdict(accel=Accel.TCG, reason="KVM is there but does not work: a guest kernel did not boot in 1 s")
    pid = Path(f"{qemu.path}.pid").read_text().strip()  # noqa: ASYNC240
    assert not Path(f"/proc/{pid}").exists()  # noqa: ASYNC240


async def test_without_the_device_nothing_is_tried(qemu: Fake) -> None:
    qemu.device.unlink()
    verdict = await qemu.verdict()
    assert verdict == Verdict(accel=Accel.TCG, reason=f"{qemu.device}: No such file or directory")
    assert qemu.calls == ""


async def test_the_verdict_is_kept_for_this_qemu_and_kernel(qemu: Fake) -> None:
    first = await qemu.verdict()
    assert await qemu.verdict() == first
    assert qemu.calls == "b"
    qemu.kernel.write_text("another")
    await qemu.verdict()
    assert qemu.calls == "bb"
    qemu.does(boot="sys.exit(1)")
    assert (await qemu.verdict()).accel is Accel.TCG
    assert qemu.calls == "bbb"


async def test_a_verdict_asked_for_anew_takes_the_place_of_the_kept_one(qemu: Fake) -> None:
    busy = qemu.path.with_name("busy")
    busy.touch()
    qemu.does(boot=f"if not os.path.exists({str(busy)!r}): {BOOTS}")
    assert (await qemu.verdict()).accel is Accel.TCG
    busy.unlink()
    assert (await qemu.verdict()).accel is Accel.TCG
    assert (await qemu.verdict(anew=True)).accel is Accel.KVM
    assert (await qemu.verdict()).accel is Accel.KVM
    assert qemu.calls == "bb"


async def test_a_verdict_of_another_host_boot_does_not_count(qemu: Fake) -> None:
    await qemu.verdict()
    (kept,) = qemu.cache.glob("kvm-verdict.json")
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()  # noqa: ASYNC240
    assert boot_id in kept.read_text()
    kept.write_text(kept.read_text().replace(boot_id, "another"))
    await qemu.verdict()
    assert qemu.calls == "bb"


@pytest.mark.parametrize("damage", [b"", b"{", b'{"x": 1}', b"\xff"])
async def test_a_damaged_cache_only_costs_time(qemu: Fake, damage: bytes) -> None:
    first = await qemu.verdict()
    (qemu.cache / "kvm-verdict.json").write_bytes(damage)
    assert await qemu.verdict() == first
    assert qemu.calls == "bb"


async def test_the_cache_is_bounded(qemu: Fake) -> None:
    for number in range(30):
        qemu.does(version=f"QEMU emulator version 7.{number}.0")
        os.utime(qemu.path, ns=(number, number))
        assert await qemu_version(qemu.path, qemu.cache) == (7, number, 0)
    assert (qemu.cache / "qemu-version.json").read_text().count("[") == 16


async def test_a_cache_that_cannot_be_written_only_costs_time(qemu: Fake) -> None:
    qemu.cache.touch()
    assert await qemu_version(qemu.path, qemu.cache) == (7, 2, 22)
    assert await qemu_version(qemu.path, qemu.cache) == (7, 2, 22)
    assert qemu.calls == "vv"


async def test_the_version_is_asked_once(qemu: Fake) -> None:
    assert await qemu_version(qemu.path, qemu.cache) == (7, 2, 22)
    assert await qemu_version(qemu.path, qemu.cache) == (7, 2, 22)
    assert qemu.calls == "v"


async def test_a_program_that_is_no_qemu_is_an_error_with_its_words(qemu: Fake) -> None:
    qemu.does(version="I am a teapot")
    with pytest.raises(HostError, match=r"said no version: I am a teapot"):
        await qemu_version(qemu.path, qemu.cache)


@pytest.mark.parametrize("accel", ["kvm", "tcg"])
async def test_the_environment_decides_on_acceleration(qemu: Fake, accel: str) -> None:
    facts = await probe(qemu.cache, qemu.kernel, {"UVM_QEMU": str(qemu.path), "UVM_ACCEL": accel})
    assert (facts.accel, facts.reason) == (accel, f"UVM_ACCEL={accel}")
    assert facts.version == (7, 2, 22)
    assert facts.processors == len(os.sched_getaffinity(0))
    assert facts.address_bits == 40 if accel == "tcg" else facts.address_bits >= 36
    assert qemu.calls == "v"


async def test_another_acceleration_is_refused_by_name(qemu: Fake) -> None:
    with pytest.raises(InvalidOptions, match="^UVM_ACCEL=hvf: must be kvm or tcg$"):
        await probe(qemu.cache, qemu.kernel, {"UVM_QEMU": str(qemu.path), "UVM_ACCEL": "hvf"})


async def test_an_old_qemu_is_refused(qemu: Fake) -> None:
    qemu.does(version="QEMU emulator version 7.1.0")
    with pytest.raises(Unsupported, match=r"is version 7\.1\.0, the oldest that works is 7\.2"):
        await probe(qemu.cache, qemu.kernel, {"UVM_QEMU": str(qemu.path), "UVM_ACCEL": "tcg"})


def test_a_missing_qemu_is_refused_with_the_package_to_install() -> None:
    with pytest.raises(Unsupported, match=r"qemu-system-x86_64: no such program") as caught:
        find_qemu({"PATH": "/nowhere"})
    assert "qemu-system-x86" in caught.value.hint
    with pytest.raises(Unsupported, match=r"/no/qemu \(from UVM_QEMU\): no such program"):
        find_qemu({"UVM_QEMU": "/no/qemu"})


def document(kernel: Path, initrd: str = "", nested: bool = False) -> ComputeSystem:
    direct = LinuxKernelDirect(kernel_file_path=str(kernel), init_rd_path=initrd)
    topology = Topology(
        memory=Memory(size_in_mb=16, allow_overcommit=True), processor=Processor(count=1, expose_virtualization_extensions=nested)
    )
    vm = VirtualMachine(stop_on_reset=True, chipset=Chipset(linux_kernel_direct=direct), compute_topology=topology)
    return ComputeSystem(virtual_machine=vm, should_terminate_on_last_handle_closed=True)


async def test_a_document_is_refused_before_anything_is_looked_for(tmp_path: Path) -> None:
    service = QemuService(cache=tmp_path, environ={"PATH": "/nowhere"})
    with pytest.raises(Unsupported, match=r"ExposeVirtualizationExtensions: not carried out"):
        await service.create(VmId("x"), document(tmp_path / "no-kernel", nested=True))
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240


async def test_a_missing_file_of_the_document_is_named(qemu: Fake) -> None:
    service = QemuService(cache=qemu.cache, environ={"UVM_QEMU": str(qemu.path), "UVM_ACCEL": "tcg"})
    with pytest.raises(NotFound, match="^/no/vmlinux: no file that can be read$"):
        await service.create(VmId("x"), document(Path("/no/vmlinux")))
    with pytest.raises(NotFound, match="^/no/initrd: no file that can be read$"):
        await service.create(VmId("x"), document(qemu.kernel, initrd="/no/initrd"))
