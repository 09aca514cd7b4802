"""What a store keeps, for whom, and what it lets go; and that it is whole whenever somebody is killed."""

import io
import json
import os
import signal
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.images.samples import Sample, archive, digest, moments_within, nobodys, tar
from utilityvm.images.depot import Progress
from utilityvm.images.store import ImageStore
from utilityvm.kit.errors import Corrupt, Exhausted, InvalidOptions, NotFound, StateError, Unsupported

BASE, ONE, OTHER = (tar({name: name.encode() * 100_000}) for name in ("base", "one", "other"))
FIRST, SECOND = Sample(layers=(BASE, ONE)), Sample(layers=(BASE, OTHER))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def add(store: ImageStore, tmp_path: Path) -> Callable[[str, Sample], None]:
    def add(name: str, sample: Sample) -> None:
        store.import_(archive(tmp_path / "a.tar", sample.layout()), name)

    return add


def layers(store: ImageStore) -> set[str]:
    return {f"sha256:{path.stem}" for path in store._depot.layers.iterdir()}


def test_an_empty_store_has_no_image_and_says_what_to_do(store: ImageStore) -> None:
    assert store.list() == []
    with pytest.raises(NotFound, match="image busybox: is not here") as caught:
        store.get("busybox")
    assert caught.value.hint == "uvm pull busybox, or uvm import FILE busybox"
    assert store.usage().total == 0
    assert not store._depot.folder.exists()


def test_images_share_their_layers_and_blobs(store: ImageStore, add: Callable[[str, Sample], None]) -> None:
    add("first", FIRST)
    add("second", SECOND)
    assert layers(store) == {digest(BASE), digest(ONE), digest(OTHER)}
    assert store.get("first").layers[1] == store.get("second").layers[1]
    assert [image.name.short for image in store.list()] == ["first:latest", "second:latest"]


@pytest.mark.parametrize("kind", ["name", "whole name", "id", "short id", "digest", "digest of the repository"])
def test_an_image_is_found_in_every_way_in_which_it_is_called(store: ImageStore, add: Callable[[str, Sample], None], kind: str) -> None:
    add("localhost/mine:1", FIRST)
    add("other", SECOND)
    asked = {
        "name": "mine:1",
        "whole name": "localhost/mine:1",
        "id": digest(FIRST.config_blob),
        "short id": digest(FIRST.config_blob)[7:19],
        "digest": FIRST.digest,
        "digest of the repository": f"localhost/mine@{FIRST.digest}",
    }
    assert store.get(asked[kind]).digest == FIRST.digest


def test_what_is_no_name_and_no_id_is_told(store: ImageStore, add: Callable[[str, Sample], None]) -> None:
    add("mine", FIRST)
    with pytest.raises(InvalidOptions, match="cannot name an image"):
        store.get("No")
    with pytest.raises(NotFound):
        store.get(digest(FIRST.config_blob)[7:18])
    with pytest.raises(NotFound):
        store.get("mine:2")


def test_a_name_that_is_given_anew_means_the_new_image(store: ImageStore, add: Callable[[str, Sample], None]) -> None:
    add("mine", FIRST)
    add("mine", SECOND)
    assert store.get("mine").digest == SECOND.digest
    assert [image.digest for image in store.list()] == [SECOND.digest]
    assert store.prune().freed > 100_000
    assert layers(store) == {digest(BASE), digest(OTHER)}


def test_removing_an_image_leaves_what_others_need(store: ImageStore, add: Callable[[str, Sample], None]) -> None:
    add("first", FIRST)
    add("second", SECOND)
    removed = store.remove("first")
    assert ([name.short for name in removed.names], removed.in_use) == (["first:latest"], False)
    assert removed.freed > 100_000
    assert layers(store) == {digest(BASE), digest(OTHER)}
    assert nobodys(store) == []
    store.remove("second")
    assert (layers(store), nobodys(store), store.list()) == (set(), [], [])
    with pytest.raises(NotFound):
        store.remove("second")


def test_one_of_two_names_is_removed_and_an_id_removes_all_when_that_is_meant(
    store: ImageStore, add: Callable[[str, Sample], None]
) -> None:
    add("first", FIRST)
    add("again", FIRST)
    with pytest.raises(StateError, match="it is called again:latest, first:latest|it is called first:latest, again:latest"):
        store.remove(FIRST.digest)
    assert store.remove("again").freed == 0
    assert store.get("first").digest == FIRST.digest
    add("again", FIRST)
    assert len(store.remove(FIRST.digest, force=True).names) == 2
    assert nobodys(store) == []


def test_layers_in_use_stay_whatever_is_removed(store: ImageStore, add: Callable[[str, Sample], None]) -> None:
    add("first", FIRST)
    with store.hold("first") as image:
        with pytest.raises(StateError, match="image first:latest: cannot be removed while a VM uses it") as caught:
            store.remove("first")
        assert "--force" in caught.value.hint
        assert store.prune(keep=0).in_use
        assert store.get("first") == image
        assert store.remove("first", force=True).in_use
        assert all(layer.exists() for layer in image.layers)
        assert store.prune().in_use
        assert all(layer.exists() for layer in image.layers)
    assert not store.prune().in_use
    assert (layers(store), nobodys(store)) == (set(), [])


def test_an_image_in_use_may_lose_a_name_when_it_has_another(store: ImageStore, add: Callable[[str, Sample], None]) -> None:
    add("first", FIRST)
    add("again", FIRST)
    with store.hold("first"):
        assert not store.remove("first").in_use


def test_a_hold_meets_a_removal_at_any_moment_and_has_its_layers_or_no_image(store: ImageStore, add: Callable[[str, Sample], None]) -> None:
    stop = threading.Event()
    told: list[BaseException] = []

    def change() -> None:
        try:
            while not stop.is_set():
                add("mine", FIRST)
                store.remove("mine", force=True)
        except BaseException as error:  # noqa: BLE001 (told to the test)
            told.append(error)

    changer = threading.Thread(target=change)
    changer.start()
    held = 0
    try:
        while held < 10 and not told:
            try:
                with store.hold("mine") as image:
                    assert all(layer.read_bytes()[1024:1028] == b"\xe2\xe1\xf5\xe0" for layer in image.layers)
                    held += 1
            except NotFound:
                continue
    finally:
        stop.set()
        changer.join()
    assert told == []


def test_prune_removes_the_images_used_longest_ago_until_the_rest_fits(store: ImageStore, add: Callable[[str, Sample], None]) -> None:
    names = ["a", "b", "c"]
    for number, name in enumerate(names):
        add(name, Sample(layers=(tar({name: os.urandom(1 << 20)}),), packed=False))
        os.utime(store._depot.records._path(f"docker.io/library/{name}:latest"), (number, number))
    store.get("a")
    whole = store.usage().total
    assert store.prune(keep=whole).names == ()
    removed = store.prune(keep=whole - 1)
    assert [name.short for name in removed.names] == ["b:latest"]
    assert [image.name.short for image in store.list()] == ["a:latest", "c:latest"]
    assert store.usage().total <= whole - removed.freed + 4096
    assert len(store.prune(keep=0).names) == 2
    assert nobodys(store) == []


def test_prune_leaves_alone_what_others_are_about_to_add(store: ImageStore, add: Callable[[str, Sample], None]) -> None:
    add("mine", FIRST)
    with store._depot.adding() as work:
        with pytest.raises(StateError, match="another uvm adds to it"):
            store.prune()
        assert store.remove("mine").in_use
        assert work.exists()
        assert layers(store) == {digest(BASE), digest(ONE)}
    assert store.prune().freed > 0
    assert nobodys(store) == []


def test_usage_is_what_the_disk_says(store: ImageStore, add: Callable[[str, Sample], None]) -> None:
    add("mine", FIRST)
    add("again", FIRST)
    add("other", SECOND)
    usage = store.usage()
    taken = sum(path.stat().st_blocks * 512 for path in store._depot.folder.rglob("*") if path.parent.name in {"sha256", "layers"})
    assert usage.images == 2
    assert taken <= usage.total <= taken + 4 * 4096
    assert usage.leftovers == 0
    store._depot.records.remove("docker.io/library/other:latest")
    left = store.usage().leftovers
    assert left > 100_000
    assert store.prune().freed == left


def test_a_part_that_is_missing_or_changed_is_told_with_what_to_do(store: ImageStore, add: Callable[[str, Sample], None]) -> None:
    for path, why in [
        (store._depot.blobs.path(FIRST.digest), "is not what its name says"),
        (store._depot.blobs.path(digest(FIRST.config_blob)), "is not what its name says"),
        (store._depot.layer(digest(ONE)), "the layer .* is missing"),
    ]:
        add("mine", FIRST)
        path.write_bytes(b"{}") if "blobs" in str(path) else path.unlink()
        with pytest.raises(Corrupt, match=f"image mine:latest: .*{why}") as caught:
            store.get("mine")
        assert "uvm rmi mine:latest" in caught.value.hint
        with pytest.raises(Corrupt):
            store.list()
        store.remove("mine")
        assert nobodys(store) == []


def test_of_two_broken_images_each_can_be_removed(store: ImageStore, add: Callable[[str, Sample], None]) -> None:
    for name, sample in (("first", FIRST), ("second", SECOND)):
        add(name, sample)
    for sample in (FIRST, SECOND):
        store._depot.blobs.path(sample.digest).write_bytes(b"")
    with pytest.raises(Corrupt, match="image (first|second):latest"):
        store.prune()
    assert store.remove("first").in_use
    assert not store.remove("second").in_use
    assert nobodys(store) == []


def test_a_layer_that_is_missing_is_made_again_of_its_blob_and_a_blob_that_is_not_itself_is_fetched_anew(
    store: ImageStore, add: Callable[[str, Sample], None]
) -> None:
    add("mine", FIRST)
    store._depot.layer(digest(ONE)).unlink()
    blob = store._depot.blobs.path(digest(FIRST.layer_blobs[1]))
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-1] + b"x")
    with pytest.raises(Corrupt, match="its content has the digest"):
        add("mine", FIRST)
    add("mine", FIRST)
    assert blob.read_bytes() == whole
    assert len(store.get("mine").layers) == 2


def test_a_record_that_cannot_be_read_is_told_with_its_file(store: ImageStore, add: Callable[[str, Sample], None]) -> None:
    add("mine", FIRST)
    path = store._depot.records._path("docker.io/library/mine:latest")
    path.write_bytes(b'{"version": 1}')
    with pytest.raises(Corrupt, match=f"{path}: is not the record of an image"):
        store.get("mine")
    path.write_bytes(b'{"version": 2}')
    with pytest.raises(Unsupported, match="has version 2 of the format"):
        store.list()
    with pytest.raises(Unsupported):
        store.prune()
    assert layers(store) == {digest(BASE), digest(ONE)}


def test_an_exported_image_is_imported_again_as_it_was(store: ImageStore, add: Callable[[str, Sample], None], tmp_path: Path) -> None:
    add("mine:1", FIRST)
    first, second = io.BytesIO(), io.BytesIO()
    store.export("mine:1", first)
    store.export(FIRST.digest, second)
    assert first.getvalue() == second.getvalue()
    other = ImageStore(tmp_path / "other")
    image = other.import_(io.BytesIO(first.getvalue()))
    assert (str(image.name), image.digest) == ("docker.io/library/mine:1", FIRST.digest)
    with tarfile.open(fileobj=io.BytesIO(first.getvalue())) as found:
        listed = json.loads(found.extractfile("manifest.json").read())  # type: ignore[union-attr]
        assert listed[0]["RepoTags"] == ["mine:1"]
        names = found.getnames()
    assert {listed[0]["Config"], *listed[0]["Layers"]} < set(names)
    assert nobodys(other) == []


def test_a_blob_that_was_changed_is_not_exported(store: ImageStore, add: Callable[[str, Sample], None]) -> None:
    add("mine", FIRST)
    path = store._depot.blobs.path(digest(FIRST.layer_blobs[0]))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(Corrupt, match="its content has the digest"):
        store.export("mine", io.BytesIO())


def shipped(folder: Path, sample: Sample) -> Path:
    files = sample.layout("busybox")
    return archive(folder / "busybox.tar", {"index.json": files.pop("index.json"), **files})


def test_an_image_that_ships_is_there_when_it_is_asked_for_and_follows_the_boot_files(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images", {"busybox": shipped(tmp_path, FIRST)})
    assert store.list() == []
    with store.hold("busybox") as image:
        assert image.digest == FIRST.digest
    assert store.get("docker.io/library/busybox").digest == FIRST.digest
    shipped(tmp_path, SECOND)
    assert store.get("busybox").digest == SECOND.digest
    store.import_(archive(tmp_path / "a.tar", FIRST.layout()), "busybox")
    assert store.get("busybox").digest == FIRST.digest
    store.remove("busybox")
    assert store.get("busybox").digest == SECOND.digest


def test_boot_files_without_an_image_say_what_to_do(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images", {"busybox": tmp_path / "busybox.tar"})
    with pytest.raises(NotFound, match="image busybox: comes with the boot files, and those that are here have none") as caught:
        store.get("busybox")
    assert "uvm boot-files build" in caught.value.hint
    store.import_(archive(tmp_path / "a.tar", FIRST.layout()), "busybox")
    assert store.get("busybox").digest == FIRST.digest


def test_an_archive_that_ships_and_is_none_is_told(tmp_path: Path) -> None:
    path = shipped(tmp_path, FIRST)
    store = ImageStore(tmp_path / "images", {"busybox": path})
    store.get("busybox")
    path.write_bytes(tar({"index.json": b"{}"}))
    with pytest.raises(Corrupt, match=r"busybox\.tar: index\.json: cannot be read"):
        store.get("busybox")


PROGRAM = """
import pathlib, sys
from utilityvm.images.store import ImageStore
store = ImageStore(pathlib.Path(sys.argv[1]))
print("go", flush=True)
for path in sys.argv[2:]:
    store.import_(pathlib.Path(path), pathlib.Path(path).stem)
store.remove(pathlib.Path(sys.argv[2]).stem)
"""


def spawn(*words: str | Path) -> int:
    reading, writing = os.pipe()
    argv = [sys.executable, "-c", PROGRAM, *map(str, words)]
    child = os.posix_spawn(sys.executable, argv, dict(os.environ), file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)])
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.readline() == b"go\n"
    return child


def test_killed_at_any_moment_the_store_is_whole_and_prune_removes_what_is_left(tmp_path: Path) -> None:
    samples = {"first": FIRST, "second": SECOND}
    paths = [archive(tmp_path / f"{name}.tar", sample.layout()) for name, sample in samples.items()]
    store = ImageStore(tmp_path / "images")
    begun, child = time.monotonic(), spawn(store._depot.folder, *paths)
    assert os.waitpid(child, 0)[1] == 0
    whole = time.monotonic() - begun
    left = list[int]()
    for moment in moments_within(whole, 12, enough=lambda: any(left)):
        child = spawn(store._depot.folder, *paths)
        threading.Event().wait(moment)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for image in store.list():
            assert image.digest == samples[image.name.path.rpartition("/")[2]].digest
            store.export(str(image.name), io.BytesIO())
        if store._depot.folder.exists():
            left.append(len(nobodys(store)))
        store.prune()
        assert nobodys(store) == [] or not store._depot.folder.exists()
        store.prune(keep=0)
    assert sum(left) > 0


def test_two_imports_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    paths = [archive(tmp_path / f"{name}.tar", sample.layout()) for name, sample in (("first", FIRST), ("second", SECOND))]
    store = ImageStore(tmp_path / "images")
    children = [spawn(store._depot.folder, *paths), spawn(store._depot.folder, *reversed(paths))]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    store.prune()
    assert nobodys(store) == []
    assert {image.digest for image in store.list()} <= {FIRST.digest, SECOND.digest}


def test_what_progress_raises_ends_the_work_and_leaves_no_image(store: ImageStore, tmp_path: Path) -> None:
    def tell(_progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.import_(archive(tmp_path / "a.tar", FIRST.layout()), "a", tell=tell)
    assert store.list() == []
    assert list(store._depot.work.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a small file system")
def test_a_full_disk_is_told_and_nothing_but_whole_images_are_there(tmp_path: Path) -> None:
    from utilityvm.kit.proc import run_tool

    small = tmp_path / "small"
    small.mkdir()
    big = Sample(layers=(tar({"big": os.urandom(3 << 20)}),))
    path = archive(tmp_path / "big.tar", big.layout())
    run_tool(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], within=10)
    try:
        store = ImageStore(small / "images")
        store.import_(archive(tmp_path / "a.tar", FIRST.layout()), "first")
        with pytest.raises(Exhausted, match="the disk is full|No space left") as caught:
            store.import_(path, "big")
        assert "uvm prune" in caught.value.hint
        assert [image.digest for image in store.list()] == [FIRST.digest]
        store.prune()
        assert nobodys(store) == []
    finally:
        run_tool(["umount", small], within=10)
