from pathlib import Path

import pytest

from utilityvm.store.layout import Layout


def test_root_has_the_places_of_the_system() -> None:
    layout = Layout.of_user(0)
    assert layout == Layout(Path("/var/lib/utilityvm"), Path("/var/cache/utilityvm"))
    assert layout.boot_files == Path("/var/lib/utilityvm/boot")
    assert layout.packages == Path("/var/cache/utilityvm/packages")


def test_others_have_the_places_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_HOME", "CACHE_HOME"):
        monkeypatch.setenv(f"XDG_{name}", f"/x/{name.lower()}")
    assert Layout.of_user(1000) == Layout(Path("/x/state_home/utilityvm"), Path("/x/cache_home/utilityvm"))


def test_others_have_places_in_their_home_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    layout = Layout.of_user(1000)
    assert layout.boot_files == Path("/home/ada/.local/state/utilityvm/boot")
    assert layout.packages == Path("/home/ada/.cache/utilityvm/packages")
