"""Records of places at the host's interfaces: written before anything is touched, and found when their owner is gone."""

from pathlib import Path

import pytest

from utilityvm.kit.errors import Exists, HostError
from utilityvm.store.places import Held, Place, leftovers

EAR = Place(path="/run/netns/a", device=4, inode=7, tap="uvm1", interface="eth0")


def test_a_place_is_taken_once_and_its_taker_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "places"
    held = Held.take(folder, EAR)
    with pytest.raises(Exists, match="the place of the interface eth0 is taken by uvm1"):
        Held.take(folder, EAR)
    Held.take(folder, Place(path="/run/netns/b", device=4, inode=8, tap="uvm2", interface="eth0")).forget()
    held.forget()
    held.forget()
    assert list(folder.iterdir()) == []
    Held.take(folder, EAR).forget()


def test_what_its_owner_holds_is_no_leftover_and_what_was_let_go_is(tmp_path: Path) -> None:
    bridged = Place(path="/x", device=4, inode=7, tap="uvm2", bridge="br0")
    held, other = Held.take(tmp_path, EAR), Held.take(tmp_path, bridged)
    with leftovers(tmp_path) as found:
        assert found == []
    held.keep()
    with leftovers(tmp_path) as found:
        assert [(place, str(place)) for place, _ in found] == [(EAR, "eth0 of /run/netns/a")]
        with pytest.raises(Exists):  # while somebody clears it
            Held.take(tmp_path, EAR)
    assert len(list(tmp_path.iterdir())) == 2
    with leftovers(tmp_path) as found:
        found[0][1].forget()
    other.keep()
    assert [file.name for file in tmp_path.iterdir()] == ["4-7-uvm2"]
    assert str(bridged) == "the bridge br0"


def test_a_place_that_was_left_is_taken_again_by_the_next(tmp_path: Path) -> None:
    Held.take(tmp_path, EAR).keep()
    Held.take(tmp_path, EAR).forget()
    with leftovers(tmp_path) as found:
        assert found == []


def test_a_record_that_was_not_written_is_of_nothing_that_was_touched(tmp_path: Path) -> None:
    (tmp_path / "4-7-eth0").touch()
    with leftovers(tmp_path) as found:
        assert found == []
    assert list(tmp_path.iterdir()) == []
    with leftovers(tmp_path / "missing") as found:
        assert found == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="4-7-eth0: cannot be written: Not a directory"):
        Held.take(tmp_path / "file" / "places", EAR)
