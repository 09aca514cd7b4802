"""`uvm volume`: what it prints and how it ends."""

import asyncio
import json
from pathlib import Path

import pytest

from utilityvm.cli.main import main
from utilityvm.containers.volumes import lock_volume, make_volume
from utilityvm.store.layout import Layout

SIZE = 32 << 20
Said = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    own = Layout(tmp_path / "state", tmp_path / "cache", tmp_path / "boot")
    monkeypatch.setattr(Layout, "of_user", lambda: own)
    return own


def test_volumes_are_listed_for_people_and_for_programs_and_removed(layout: Layout, capsys: Said) -> None:
    for name in ("data", "more"):
        asyncio.run(make_volume(layout, name, SIZE))
    held = lock_volume(layout, "more", read_only=False)
    assert main(["volume", "ls"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["NAME", "SIZE", "TAKEN", "IN", "USE"]
    assert [(line[0], line[-1]) for line in lines[1:]] == [("data", "no"), ("more", "yes")]
    assert main(["volume", "ls", "--json"]) == 0
    assert [(one["name"], one["size"]) for one in json.loads(capsys.readouterr().out)] == [("data", SIZE), ("more", SIZE)]
    assert main(["volume", "rm", "more", "absent", "data"]) == 3
    said = capsys.readouterr()
    assert said.out == "data\n"
    assert "volume more: cannot be had to write: another VM has it" in said.err
    assert "volume absent: there is none" in said.err
    held.close()
    assert main(["volume", "rm", "more"]) == 0
    assert list(layout.volumes.iterdir()) == []
