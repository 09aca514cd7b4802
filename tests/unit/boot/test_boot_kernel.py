import gzip

import pytest

from tests.unit.boot import samples
from utilityvm.boot import kernel
from utilityvm.kit.errors import Corrupt, Unsupported

ELF = samples.elf({".text": bytes(range(256)) * 20})


def test_a_kernel_compressed_with_xz_is_taken_out() -> None:
    assert kernel.vmlinux(samples.kernel_image(ELF), "vmlinuz") == ELF


def test_a_kernel_compressed_with_gzip_is_taken_out() -> None:
    assert kernel.vmlinux(samples.bzimage(gzip.compress(ELF) + bytes(4)), "vmlinuz") == ELF


@pytest.mark.parametrize(
    ("magic", "name"), [(b"\x28\xb5\x2f\xfd", "zstd"), (b"\x02\x21\x4c\x18", "lz4"), (b"BZh9", "bzip2"), (b"????", "an unknown method")]
)
def test_another_compression_is_named(magic: bytes, name: str) -> None:
    with pytest.raises(Unsupported, match=f"compressed with {name}; xz and gzip can be read"):
        kernel.vmlinux(samples.bzimage(magic + bytes(100)), "vmlinuz")


def test_a_damaged_kernel_is_corrupt() -> None:
    image = bytearray(samples.kernel_image(ELF))
    image[-60] ^= 0xFF
    with pytest.raises(Corrupt, match=r"^vmlinuz: its compressed kernel is damaged"):
        kernel.vmlinux(bytes(image), "vmlinuz")


def test_a_truncated_kernel_is_corrupt() -> None:
    image = samples.kernel_image(ELF)
    for size in range(0, len(image) - 4, 97):
        with pytest.raises(Corrupt):
            kernel.vmlinux(image[:size], "vmlinuz")


def test_what_is_no_kernel_image_is_refused() -> None:
    with pytest.raises(Corrupt, match=r"^kernel: not a Linux kernel image \(bzImage\)$"):
        kernel.check_image(ELF[: kernel.HEAD_SIZE], "kernel")


def test_a_32_bit_kernel_is_refused() -> None:
    with pytest.raises(Unsupported, match="no 64-bit entry point"):
        kernel.check_image(samples.bzimage(b"", flags=0), "kernel")


def test_a_kernel_for_another_machine_inside_is_refused() -> None:
    with pytest.raises(Unsupported, match="the kernel inside vmlinuz: is for aarch64"):
        kernel.vmlinux(samples.kernel_image(samples.elf(machine=183)), "vmlinuz")
