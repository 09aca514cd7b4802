from pathlib import Path
from typing import NoReturn

import pytest

from utilityvm.kit.errors import HostError
from utilityvm.store.layout import BOOT_FILES_VARIABLE, Layout


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BOOT_FILES_VARIABLE, raising=False)


def test_root_has_the_places_of_the_system() -> None:
    layout = Layout.of_user(0)
    assert layout == Layout(Path("/var/lib/utilityvm"), Path("/var/cache/utilityvm"), Path("/var/lib/utilityvm/boot"))
    assert layout.packages == Path("/var/cache/utilityvm/packages")
    assert layout.kernels == Path("/var/cache/utilityvm/kernels")
    assert layout.disks == Path("/var/cache/utilityvm/disks")
    assert layout.images == Path("/var/lib/utilityvm/images")
    assert layout.shipped_images == {"busybox": Path("/var/lib/utilityvm/boot/busybox.tar")}
    assert layout.volumes == Path("/var/lib/utilityvm/volumes")
    assert layout.scratch == Path("/var/lib/utilityvm/scratch")


def test_others_have_the_places_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_HOME", "CACHE_HOME"):
        monkeypatch.setenv(f"XDG_{name}", f"/x/{name.lower()}")
    layout = Layout.of_user(1000)
    assert layout == Layout(Path("/x/state_home/utilityvm"), Path("/x/cache_home/utilityvm"), Path("/x/state_home/utilityvm/boot"))


def test_others_have_places_in_their_home_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    layout = Layout.of_user(1000)
    assert layout.boot_files == Path("/home/ada/.local/state/utilityvm/boot")
    assert layout.packages == Path("/home/ada/.cache/utilityvm/packages")


@pytest.mark.parametrize("uid", [0, 1000])
def test_other_boot_files_can_be_named_by_everybody(uid: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Layout.of_user(uid)
    monkeypatch.setenv(BOOT_FILES_VARIABLE, "/elsewhere/boot")
    assert Layout.of_user(uid) == Layout(before.state, before.cache, Path("/elsewhere/boot"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(BOOT_FILES_VARIABLE, "near")
    assert Layout.of_user(uid).boot_files == tmp_path / "near"
    monkeypatch.setenv(BOOT_FILES_VARIABLE, "")
    assert Layout.of_user(uid) == before


@pytest.mark.parametrize("home", [None, ""])
def test_a_user_without_a_home_is_told_what_to_set(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)

    def nobody(_uid: int) -> NoReturn:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(HostError, match="has no home folder") as caught:
        Layout.of_user(54321)
    assert caught.value.hint == "set HOME, or XDG_STATE_HOME and XDG_CACHE_HOME"
