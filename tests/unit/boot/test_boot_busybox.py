"""The image that comes with the boot files."""

import io
import tarfile
from pathlib import Path

from utilityvm.boot import busybox
from utilityvm.images.store import ImageStore

PROGRAM = b"\x7fELF" + bytes(1000)


def image() -> bytes:
    return busybox.image(PROGRAM, ["ls", "sh", "busybox"], "amd64")


def test_the_same_pieces_give_the_same_bytes() -> None:
    assert image() == image()


def test_it_is_imported_and_runs_a_shell(tmp_path: Path) -> None:
    (tmp_path / "busybox.tar").write_bytes(image())
    store = ImageStore(tmp_path / "images", {"busybox": tmp_path / "busybox.tar"})
    found = store.get("busybox")
    assert (found.name.short, found.config.cmd, found.config.platform) == ("busybox:latest", ("sh",), "linux/amd64")
    assert found.config.env == ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    with tarfile.open(store._depot.blobs.path(f"sha256:{found.layers[0].stem}")) as layer:
        members = {member.name: member for member in layer}
        program = layer.extractfile("bin/busybox")
        assert program
        assert program.read() == PROGRAM
    assert (members["bin/busybox"].type, members["bin/busybox"].mode) == (tarfile.REGTYPE, 0o755)
    assert members["bin/sh"].linkname == members["bin/ls"].linkname == "busybox"
    assert members["tmp"].mode == 0o1777
    assert {member.mtime for member in members.values()} == {0}
    assert {(member.uid, member.gid) for member in members.values()} == {(0, 0)}


def test_its_index_comes_first_so_that_who_looks_reads_little() -> None:
    with tarfile.open(fileobj=io.BytesIO(image())) as archive:
        assert archive.getnames()[0] == "index.json"
