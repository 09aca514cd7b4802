from pathlib import PurePosixPath

from tests.unit.boot import samples
from tests.unit.boot.test_boot_cpio import read
from utilityvm.boot import initrd
from utilityvm.boot.modules import Module

BOOT = [Module("virtio", samples.module()), Module("virtio_pci", samples.module("virtio"))]
PIECES = initrd.Pieces(
    agent=b"agent",
    busybox=b"busybox",
    applets=["busybox", "ls", "sh"],
    programs={"bin/crun": b"crun", "lib64/ld.so": b"ld"},
    release="6.1.0-1-amd64",
    modules={"boot": BOOT, "scsi": [*BOOT, Module("sd_mod", b"sd")]},
)
CONTENTS = {name: (values, content) for values, name, content in read(initrd.image(PIECES))}


def test_the_agent_is_init_and_answers_to_the_names_of_the_guest_programs() -> None:
    assert CONTENTS["init"][1] == b"agent"
    assert CONTENTS["init"][0]["mode"] & 0o777 == 0o755
    assert CONTENTS["bin/gcs"][1] == CONTENTS["bin/vsockexec"][1] == b"/init"


def test_busybox_has_a_link_for_each_applet_but_itself() -> None:
    assert CONTENTS["bin/busybox"][1] == b"busybox"
    assert CONTENTS["bin/ls"][1] == CONTENTS["bin/sh"][1] == b"busybox"


def test_every_file_has_its_folder_before_it() -> None:
    seen = {"."}
    for name in CONTENTS:
        assert str(PurePosixPath(name).parent) in seen
        seen.add(name)


def test_the_list_of_modules_names_files_that_are_there() -> None:
    text = CONTENTS["etc/utilityvm/modules"][1].decode()
    assert text.splitlines() == [
        "boot: /lib/modules/6.1.0-1-amd64/virtio.ko /lib/modules/6.1.0-1-amd64/virtio_pci.ko",
        "scsi: /lib/modules/6.1.0-1-amd64/virtio.ko /lib/modules/6.1.0-1-amd64/virtio_pci.ko /lib/modules/6.1.0-1-amd64/sd_mod.ko",
    ]
    for line in text.splitlines():
        for path in line.split()[1:]:
            assert path.removeprefix("/") in CONTENTS


def test_a_group_that_is_built_in_is_an_empty_line() -> None:
    assert initrd.module_list("r", {"boot": []}) == "boot:\n"
