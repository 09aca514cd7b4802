"""Boot files built from the real packages of this host's distribution."""

import hashlib

import pytest

from utilityvm.boot.build import build, find_agent
from utilityvm.boot.files import BootFiles, load
from utilityvm.store.layout import Layout

pytestmark = pytest.mark.vm

FILES = ["vmlinux", "kernel", "initrd.img", "manifest.json"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BootFiles:
    return build(tmp_path_factory.mktemp("boot") / "boot", find_agent(), Layout.of_user().packages, print)


def test_what_was_built_is_in_order(built: BootFiles) -> None:
    assert load(built.folder, digests=True) == built


def test_a_second_build_is_the_same_to_the_byte_and_replaces_the_first(built: BootFiles) -> None:
    before = {name: hashlib.sha256((built.folder / name).read_bytes()).hexdigest() for name in FILES}
    inode = built.folder.stat().st_ino
    again = build(built.folder, find_agent(), Layout.of_user().packages, print)
    assert {name: hashlib.sha256((again.folder / name).read_bytes()).hexdigest() for name in FILES} == before
    assert again.folder.stat().st_ino != inode
    assert sorted(path.name for path in built.folder.iterdir()) == sorted(FILES)
    assert list(built.folder.parent.iterdir()) == [built.folder]


def test_the_manifest_names_the_packages_and_the_agent(built: BootFiles) -> None:
    names = {package.name for package in built.manifest.packages}
    assert {"busybox-static", "crun", "libc6", f"linux-image-{built.manifest.kernel.release}"} <= names
    agent = find_agent().read_bytes()
    assert built.manifest.agent.sha256 == hashlib.sha256(agent).hexdigest()
    assert agent in built.initrd.read_bytes()


def test_the_initial_ram_disk_is_small(built: BootFiles) -> None:
    assert built.initrd.stat().st_size < 24 << 20  # under software emulation each MiB costs every boot some 5 ms
