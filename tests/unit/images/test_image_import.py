"""Archives of every kind become images, and what is wrong with one is told."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.images.samples import Files, Sample, archive, descriptor, digest, folder, index_of, link, nobodys, tar, write
from utilityvm.images import formats, importing, outer
from utilityvm.images.archive import Kind
from utilityvm.images.depot import Progress  # noqa: TC001 (a value, too)
from utilityvm.images.limits import Limits
from utilityvm.images.store import ImageStore, host_platform
from utilityvm.kit.errors import Corrupt, Exhausted, InvalidOptions, NotFound, Unsupported, UtilityVMError

EROFS = b"\xe2\xe1\xf5\xe0"


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def blob(store: ImageStore, name: str) -> bytes:
    return store._depot.blobs.path(name).read_bytes()


def test_an_oci_archive_is_imported_to_the_byte(store: ImageStore, tmp_path: Path) -> None:
    sample = Sample()
    image = store.import_(archive(tmp_path / "a.tar", sample.layout()), "mine")
    assert (str(image.name), image.digest, image.id) == ("docker.io/library/mine:latest", sample.digest, digest(sample.config_blob))
    assert (image.config.cmd, image.config.env, image.config.platform) == (("sh",), ("A=b",), "linux/amd64")
    assert [blob(store, digest(data)) for data in sample.blobs().values()] == list(sample.blobs().values())
    assert [path.name for path in image.layers] == [f"{digest(layer)[7:]}.erofs" for layer in reversed(sample.layers)]
    assert all(path.read_bytes()[1024:1028] == EROFS for path in image.layers)
    assert image.size == sum(path.stat().st_size for path in image.layers)
    assert store.get("mine") == image
    assert nobodys(store) == []


def test_an_oci_layout_is_imported_as_its_archive_is(store: ImageStore, tmp_path: Path) -> None:
    image = store.import_(write(tmp_path / "layout", Sample().layout()))
    assert (str(image.name), image.digest) == ("docker.io/library/sample:1", Sample().digest)


@pytest.mark.parametrize("files", [Sample().docker("ada/tools:2"), {**Sample().docker("ada/tools:2"), "repositories": b"{}"}])
def test_a_docker_archive_is_imported_and_keeps_its_id(store: ImageStore, tmp_path: Path, files: Files) -> None:
    image = store.import_(archive(tmp_path / "a.tar", files))
    assert (str(image.name), image.id) == ("docker.io/ada/tools:2", digest(Sample().config_blob))
    assert [path.name for path in image.layers] == [f"{digest(layer)[7:]}.erofs" for layer in reversed(Sample().layers)]
    assert store.import_(archive(tmp_path / "b.tar", files), "other").digest == image.digest
    assert nobodys(store) == []


def test_layers_of_a_docker_archive_may_be_links_to_others(store: ImageStore, tmp_path: Path) -> None:
    sample = Sample(layers=(Sample().layers[0],) * 3)
    config = digest(sample.config_blob)[7:]
    names = ["1/layer.tar", "2/layer.tar", "3/layer.tar"]
    listed = json.dumps([{"Config": f"{config}.json", "RepoTags": ["a:1"], "Layers": names}]).encode()
    ids: Files = {
        "1" * 64: sample.layers[0],
        "2" * 64: link(f"../{'1' * 64}/layer.tar"),
        "3" * 64: link(f"{'2' * 64}/layer.tar", tarfile.LNKTYPE),
    }
    listed = (
        listed.replace(b'"1/', f'"{"1" * 64}/'.encode()).replace(b'"2/', f'"{"2" * 64}/'.encode()).replace(b'"3/', f'"{"3" * 64}/'.encode())
    )
    files: Files = {
        **{f"{name}/layer.tar": data for name, data in ids.items()},
        f"{config}.json": sample.config_blob,
        "manifest.json": listed,
    }
    image = store.import_(archive(tmp_path / "a.tar", files))
    assert len(image.layers) == 1  # overlayfs takes none twice


def test_compressed_layers_of_a_docker_archive_are_kept_as_they_are(store: ImageStore, tmp_path: Path) -> None:
    sample = Sample()
    files = {
        name: gzip.compress(data) if name.endswith(".tar") and isinstance(data, bytes) else data
        for name, data in sample.docker("a:1").items()
    }
    image = store.import_(archive(tmp_path / "a.tar", files))
    assert [path.name for path in image.layers] == [f"{digest(layer)[7:]}.erofs" for layer in reversed(sample.layers)]


def test_a_root_file_system_is_imported_as_one_layer(store: ImageStore, tmp_path: Path) -> None:
    data = tar({"./": folder(), "./bin/": folder(), "./bin/true": b"x"})
    (tmp_path / "root.tar").write_bytes(data)
    image = store.import_(tmp_path / "root.tar", "root")
    assert [path.name for path in image.layers] == [f"{digest(data)[7:]}.erofs"]
    assert image.config.platform == str(host_platform())
    (tmp_path / "root.tar.gz").write_bytes(gzip.compress(data))
    packed = store.import_(tmp_path / "root.tar.gz", "packed")
    assert packed.layers == image.layers
    assert packed.digest != image.digest
    assert nobodys(store) == []


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_a_packing_that_oci_has_no_name_for_is_taken_off(store: ImageStore, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    data = tar({"bin/true": b"x"})
    (tmp_path / "root").write_bytes(pack(data))
    assert store.import_(tmp_path / "root", "a").digest == store.import_(io.BytesIO(data), "b").digest


def test_an_archive_whose_files_look_like_an_images_may_be_a_root_file_system(store: ImageStore, tmp_path: Path) -> None:
    data = tar({"manifest.json": b"[]", "usr/": folder()})
    (tmp_path / "root.tar").write_bytes(data)
    assert [path.name for path in store.import_(tmp_path / "root.tar", "root").layers] == [f"{digest(data)[7:]}.erofs"]
    (tmp_path / "index.tar").write_bytes(tar({"oci-layout": b"", "index.json": b""}))
    assert store.import_(tmp_path / "index.tar", "root", Kind.ROOTFS).layers
    with pytest.raises(Corrupt, match=r"index\.tar: index\.json: cannot be read"):
        store.import_(tmp_path / "index.tar", "root")


def test_a_folder_is_imported_with_all_that_a_file_is(store: ImageStore, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "tool").write_bytes(b"tool")
    (root / "bin" / "twin").hardlink_to(root / "bin" / "tool")
    (root / "bin" / "link").symlink_to("/nowhere")
    os.mkfifo(root / "pipe")
    (root / os.fsdecode(b"\xff\n")).write_bytes(b"odd")
    os.utime(root / "bin" / "tool", ns=(0, 1_234_567_890_123_456_789))
    (root / "bin" / "tool").chmod(0o4755)
    image = store.import_(root, "root")
    assert store.import_(root, "again").digest == image.digest
    with tarfile.open(store._depot.blobs.path(f"sha256:{image.layers[0].stem}")) as found:
        members = {member.name: member for member in found}
    assert {name: member.type for name, member in members.items()} == {
        ".": tarfile.DIRTYPE,
        "bin": tarfile.DIRTYPE,
        "bin/link": tarfile.SYMTYPE,
        "bin/tool": tarfile.REGTYPE,
        "bin/twin": tarfile.LNKTYPE,
        "pipe": tarfile.FIFOTYPE,
        "\udcff\n": tarfile.REGTYPE,
    }
    assert members["bin/tool"].mode == 0o4755
    assert members["bin/tool"].pax_headers["mtime"] == "1234567890.123456789"
    assert members["bin/link"].linkname == "/nowhere"


def test_what_comes_by_a_pipe_is_imported(store: ImageStore) -> None:
    reading, writing = os.pipe()
    data = tar(Sample().docker("a:1"))
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(data[: 1 << 16])
    with os.fdopen(reading, "rb") as pipe:
        assert len(data) < 1 << 16
        assert store.import_(pipe).id == digest(Sample().config_blob)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_an_archive_of_an_image_may_be_packed(store: ImageStore, pack: Callable[[bytes], bytes]) -> None:
    assert store.import_(io.BytesIO(pack(tar(Sample().layout()))), "a").digest == Sample().digest


def test_of_several_images_the_one_that_is_named_is_imported(store: ImageStore, tmp_path: Path) -> None:
    one, other = Sample(), Sample(config={"Cmd": ["other"]})
    files = {**one.docker("a:1"), **other.docker("a:2")}
    both = json.loads(bytes(one.docker("a:1")["manifest.json"])) + json.loads(bytes(other.docker("a:2")["manifest.json"]))  # type: ignore[arg-type]
    path = archive(tmp_path / "a.tar", {**files, "manifest.json": json.dumps(both).encode()})
    assert store.import_(path, "a:2").config.cmd == ("other",)
    with pytest.raises(InvalidOptions, match="has 2 images: a:1, a:2") as caught:
        store.import_(path)
    assert "import it under one of these names" in caught.value.hint
    layout = index_of(
        *(
            {**descriptor(formats.OCI_MANIFEST, image.manifest_blob), "annotations": {"org.opencontainers.image.ref.name": name}}
            for image, name in ((one, "first"), (other, "second"))
        )
    )
    path = archive(tmp_path / "b.tar", {**layout, **one.blobs(), **other.blobs()})
    assert store.import_(path, "x:second").config.cmd == ("other",)


def test_of_several_platforms_the_host_s_is_imported(store: ImageStore, tmp_path: Path) -> None:
    here = Sample(architecture=host_platform().architecture)
    other = Sample(architecture="s390x")
    entries = [
        {**descriptor(formats.OCI_MANIFEST, image.manifest_blob), "platform": {"os": "linux", "architecture": image.architecture}}
        for image in (other, here)
    ]
    path = archive(tmp_path / "a.tar", {**index_of(*entries), **other.blobs(), **here.blobs()})
    assert store.import_(path, "a").digest == here.digest
    inner = json.dumps({"schemaVersion": 2, "mediaType": formats.OCI_INDEX, "manifests": entries}).encode()
    nested = {**index_of(descriptor(formats.OCI_INDEX, inner)), f"blobs/sha256/{digest(inner)[7:]}": inner}
    path = archive(tmp_path / "b.tar", {**nested, **other.blobs(), **here.blobs()})
    assert store.import_(path, "b").digest == here.digest
    path = archive(tmp_path / "c.tar", {**index_of(*entries[:1], *entries[:1]), **other.blobs()})
    with pytest.raises(NotFound, match="has no image for linux/.*, only for linux/s390x"):
        store.import_(path, "c")


def replaced(name: str, data: bytes) -> dict[str, bytes]:
    return {key: data if key == name else value for key, value in Sample().layout().items()}


def layer_name(number: int) -> str:
    return f"blobs/sha256/{digest(Sample().layer_blobs[number])[7:]}"


def other_layer() -> bytes:
    return gzip.compress(tar({"etc/name": b"evil"}))


def same_size(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


WRONG: list[tuple[Files, str]] = [
    ({**replaced(layer_name(0), other_layer())}, "bytes, the image says"),
    ({**replaced(layer_name(1), same_size(Sample().layer_blobs[1]))}, "its content has the digest"),
    ({**replaced(f"blobs/sha256/{Sample().digest[7:]}", b"{}")}, "has the digest sha256:44136fa"),
    ({**replaced(f"blobs/sha256/{digest(Sample().config_blob)[7:]}", b"{}")}, "has the digest sha256:44136fa"),
    ({key: value for key, value in Sample().layout().items() if key != layer_name(0)}, "has no entry blobs/sha256/"),
    ({**replaced("index.json", b"{}")}, "index.json: cannot be read"),
    ({**replaced("index.json", b"[" * 100_000)}, "index.json: cannot be read"),
    ({**replaced("index.json", b" " * (formats.MAX_JSON + 1))}, "index.json has more than"),
    ({**index_of()}, "has no image"),
    ({**index_of(descriptor("", b"x") | {"digest": "sha256:" + "../" * 20})}, "index.json: cannot be read"),
    ({**Sample().layout(), layer_name(0): link("/etc/shadow")}, "has no entry blobs/sha256/"),
    ({**Sample().layout(), layer_name(0): link("../../../../../etc/shadow")}, "has no entry blobs/sha256/"),
    ({**Sample().layout(), layer_name(0): link(layer_name(0).rpartition("/")[2])}, "the links of the entry 'blobs/sha256/"),
    ({"manifest.json": b"{}"}, "manifest.json: cannot be read"),
    ({"manifest.json": b'[{"Config": "/etc/shadow", "Layers": []}]'}, "has no entry /etc/shadow"),
    ({**Sample().docker("a:1"), "manifest.json": b'[{"Config": "manifest.json", "Layers": []}]'}, "manifest.json: cannot be read"),
    ({**Sample(layers=()).docker("a:1"), "manifest.json": Sample().docker("a:1")["manifest.json"]}, "has no entry"),
]


@pytest.mark.parametrize(("files", "why"), WRONG)
def test_what_is_wrong_with_an_archive_is_told_and_no_image_comes_of_it(store: ImageStore, tmp_path: Path, files: Files, why: str) -> None:
    path = archive(tmp_path / "a.tar", files)
    with pytest.raises(Corrupt) as caught:
        store.import_(path, "a")
    assert why in caught.value.message
    assert str(path) in caught.value.message
    assert store.list() == []
    store.prune()
    assert nobodys(store) == []


def test_a_layer_that_unpacks_to_something_else_than_the_image_says_is_refused_and_not_kept(store: ImageStore, tmp_path: Path) -> None:
    class Lying(Sample):
        @property
        def config_blob(self) -> bytes:
            return super().config_blob.replace(digest(self.layers[0]).encode(), digest(b"other").encode())

    with pytest.raises(Corrupt, match="unpacked it has the digest .*, the image says"):
        store.import_(archive(tmp_path / "a.tar", Lying().layout()), "a")
    assert not store._depot.blobs.path(digest(Lying().layer_blobs[0])).exists()


def test_a_layer_that_cannot_be_read_is_told_with_its_entry(store: ImageStore, tmp_path: Path) -> None:
    sample = Sample(layers=(tar({"../outside": b"x"}),))
    with pytest.raises(Corrupt, match="outside"):
        store.import_(archive(tmp_path / "a.tar", sample.layout()), "a")


def extension(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"\0" * 1024, "is empty"),
        (b"no archive at all" * 100, "is not a tar archive, or is damaged"),
        (tar({"index.json": b"x" * 600})[:1000], "breaks off in the entry"),
        (tar({"index.json": b""})[:300], "breaks off in a header"),
        (extension(b"x", 1 << 40) + b"\0" * 4096, "breaks off in the entry"),
        (extension(b"L", 2 << 20) + b"\0" * (3 << 20), "more than 1048576 bytes of names"),
        (extension(b"x", 30) + b"9999999 path=a\n".ljust(512, b"\0"), "an extended record that is not in its form"),
        (extension(b"x", 8) + b"6 a=b\n\0\0".ljust(512, b"\0"), "an extended record that is not in its form"),
        (tar({"blobs/" + "a/" * 3000: b""}), "the name of an entry has more than 4096 bytes"),
        (extension(b"S", 0), "is a sparse file"),
    ],
)
def test_a_broken_or_hostile_archive_is_refused(store: ImageStore, data: bytes, why: str) -> None:
    with pytest.raises(Corrupt) as caught:
        store.import_(io.BytesIO(data), "a")
    assert why in caught.value.message
    assert caught.value.message.startswith("the archive: ")
    store.prune()
    assert nobodys(store) == []


@pytest.mark.parametrize(
    ("limits", "why"), [(Limits(free_bytes=1 << 20), "250 times larger"), (Limits(archive_bytes=1 << 20), "1048576 bytes")]
)
def test_a_bomb_is_refused_before_the_disk_is_full(store: ImageStore, monkeypatch: pytest.MonkeyPatch, limits: Limits, why: str) -> None:
    monkeypatch.setattr(importing, "LIMITS", limits)
    with pytest.raises(Corrupt, match=f"^the archive: .*{why}"):
        store.import_(io.BytesIO(gzip.compress(bytes(20 << 20))), "a")


class Endless(io.BytesIO):
    """A pipe that never ends."""

    def seekable(self) -> bool:
        return False

    def read(self, _size: int | None = -1, /) -> bytes:
        return bytes(1 << 16)


def test_a_pipe_without_end_is_given_up(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "LIMITS", Limits(archive_bytes=1 << 20))
    with pytest.raises(Corrupt, match="the archive has more than 1048576 bytes"):
        store.import_(Endless(), "a")


def test_an_archive_of_too_many_entries_is_refused(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outer, "MAX_ENTRIES", 3)
    with pytest.raises(Corrupt, match="more than 3 entries"):
        store.import_(io.BytesIO(tar({f"{n}.json": b"" for n in range(4)})), "a")


def test_a_name_that_is_missing_or_none_is_told(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidOptions, match="does not say what its image is called"):
        store.import_(archive(tmp_path / "a.tar", Sample().layout("latest")))
    with pytest.raises(InvalidOptions, match="is a root file system, which has no name"):
        store.import_(archive(tmp_path / "b.tar", {"bin/true": b""}))
    with pytest.raises(InvalidOptions, match="cannot name an image"):
        store.import_(tmp_path / "a.tar", "No")
    with pytest.raises(NotFound, match=r"missing\.tar: no such file"):
        store.import_(tmp_path / "missing.tar", "a")


def test_what_is_packed_in_an_unknown_way_is_unsupported(store: ImageStore) -> None:
    with pytest.raises(Unsupported, match="lz4"):
        store.import_(io.BytesIO(b"\x04\x22\x4d\x18" + b"x" * 600), "a")


def test_importing_again_reads_no_layer(store: ImageStore, tmp_path: Path) -> None:
    for files in (Sample().layout("a:1"), Sample().docker("a:1")):
        path = archive(tmp_path / "a.tar", files)
        store.import_(path)
        heard: list[Progress] = []
        store.import_(path, tell=heard.append)
        assert heard == []


def test_progress_is_told_to_the_end(store: ImageStore, tmp_path: Path) -> None:
    heard: list[Progress] = []
    store.import_(archive(tmp_path / "a.tar", Sample().layout()), tell=heard.append)
    whats = list(dict.fromkeys(progress.what for progress in heard))
    assert whats == ["reading layer 1/2", "reading layer 2/2", "layer 1/2", "layer 2/2"]
    assert {progress.what for progress in heard if progress.done == progress.total} == set(whats)


class Full(io.BytesIO):
    def read(self, _size: int | None = -1, /) -> bytes:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_told(store: ImageStore) -> None:
    with pytest.raises(Exhausted, match="the disk is full") as caught:
        store.import_(Full(), "a")
    assert "uvm prune" in caught.value.hint
    assert isinstance(caught.value, UtilityVMError)
