import lzma
from pathlib import PurePosixPath

import pytest

from tests.unit.boot import samples
from utilityvm.boot import elf
from utilityvm.boot.modules import load_order, module_name, unsigned
from utilityvm.kit.errors import NotFound, Unsupported

CONTENTS = {
    "/m/virtio.ko": samples.module(),
    "/m/virtio-ring.ko": samples.module("virtio"),
    "/m/virtio_pci.ko": samples.module("virtio-ring,virtio"),
    "/m/erofs.ko": samples.module("libcrc32c"),
    "/m/libcrc32c.ko": samples.module(softdep="pre: crc32c"),
    "/m/ext4.ko": samples.module(softdep="pre: crypto-crc32c post: absent"),
    "/m/crc32c_generic.ko": samples.module(),
    "/m/lonely.ko": samples.module(softdep="pre: absent"),
    "/m/broken.ko": samples.module("absent"),
    "/m/packed.ko.xz": lzma.compress(samples.module("virtio")),
    "/m/zipped.ko.zst": b"",
}
FILES = {module_name(path): PurePosixPath(path) for path in CONTENTS}


def order(*names: str, built_in: frozenset[str] = frozenset()) -> list[str]:
    groups = load_order({"group": names}, FILES, built_in, lambda path: CONTENTS[str(path)])
    return [module.name for module in groups["group"]]


def test_what_a_module_needs_comes_before_it_and_once() -> None:
    assert order("virtio_pci", "virtio_ring") == ["virtio", "virtio_ring", "virtio_pci"]


def test_a_soft_dependency_is_found_behind_its_alias() -> None:
    assert order("erofs") == ["crc32c_generic", "libcrc32c", "erofs"]
    assert order("ext4") == ["crc32c_generic", "ext4"]


def test_a_soft_dependency_that_does_not_exist_is_left_out() -> None:
    assert order("lonely") == ["lonely"]


def test_a_built_in_module_needs_no_file() -> None:
    assert order("virtio_pci", "ext4", built_in=frozenset({"virtio", "ext4"})) == ["virtio_ring", "virtio_pci"]


def test_a_module_that_the_kernel_lacks_is_named() -> None:
    with pytest.raises(NotFound, match="kernel module absent"):
        order("broken")
    with pytest.raises(NotFound, match="kernel module virtio_vsock"):
        order("virtio_vsock")


def test_each_group_is_complete_on_its_own() -> None:
    groups = load_order({"a": ("erofs",), "b": ("ext4",)}, FILES, frozenset(), lambda path: CONTENTS[str(path)])
    assert [module.name for module in groups["b"]] == ["crc32c_generic", "ext4"]


def test_a_compressed_module_is_uncompressed() -> None:
    groups = load_order({"a": ("packed",)}, FILES, frozenset(), lambda path: CONTENTS[str(path)])
    assert groups["a"][1].data == samples.module("virtio")


def test_another_compression_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"zipped\.ko\.zst"):
        order("zipped")


def signed(module: bytes, signature: bytes = b"s" * 300, length: int | None = None) -> bytes:
    """A module as the kernel's `sign-file` leaves it."""
    size = len(signature) if length is None else length
    return module + signature + bytes([0, 0, 2, 0, 0, 0, 0, 0]) + size.to_bytes(4, "big") + b"~Module signature appended~\n"


def test_a_module_has_no_signature_in_the_guest() -> None:
    assert unsigned(signed(b"the module")) == b"the module"
    assert unsigned(b"the module") == b"the module"


def test_a_module_whose_signature_makes_no_sense_stays_as_it_is() -> None:
    for data in (signed(b"", b""), signed(b"module", length=1 << 31), b"~Module signature appended~\n"):
        assert unsigned(data) == data


def test_what_only_tracing_needs_is_left_out() -> None:
    kept = {".modinfo": b"depends=\0", ".text": b"code", "__versions": b"1"}
    idle = {
        ".BTF": b"1",
        ".orc_unwind": b"2",
        ".orc_unwind_ip": b"3",
        ".rela.orc_unwind_ip": b"4",
        "_ftrace_events": b"5",
        ".rela_ftrace_events": b"6",
    }
    data = samples.elf(kept | idle)
    (module,) = load_order({"group": ("m",)}, {"m": PurePosixPath("/m.ko")}, frozenset(), lambda _: data)["group"]
    assert {name: elf.section(module.data, name) for name in kept} == kept
    assert {elf.section(module.data, name) for name in idle} == {b""}
