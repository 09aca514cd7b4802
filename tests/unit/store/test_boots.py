"""The folder of templates of boots: which are theirs, and which go first."""

import os
from pathlib import Path

from utilityvm.store import boots

NAMES = tuple(boots.id_of(digit * 32) for digit in "abc")


def template(folder: Path, name: str, used: int, size: int = 8192) -> None:
    (folder / name).mkdir()
    (folder / name / "memory").write_bytes(b"x" * size)
    os.utime(folder / name, (used, used))


def test_only_templates_of_boots_are_theirs_the_one_used_longest_ago_first(tmp_path: Path) -> None:
    template(tmp_path, NAMES[0], used=20)
    template(tmp_path, NAMES[1], used=10)
    for other in ("mine", "boot-mine", f".{NAMES[2]}", "boot-" + "A" * 32, NAMES[2] + "0"):
        template(tmp_path, other, used=0)
    assert boots.ids(tmp_path) == (NAMES[1], NAMES[0])
    boots.use(tmp_path, NAMES[1])
    assert boots.ids(tmp_path) == (NAMES[0], NAMES[1])


def test_where_no_template_was_made_there_are_none(tmp_path: Path) -> None:
    assert boots.ids(tmp_path / "templates") == ()
    assert boots.evict(tmp_path / "templates") == 0


def test_those_used_longest_ago_go_until_the_rest_is_within_the_budget(tmp_path: Path) -> None:
    for used, name in enumerate(NAMES):
        template(tmp_path, name, used)
    template(tmp_path, "mine", used=0)
    assert boots.evict(tmp_path, 3 * 8192) == 0
    assert boots.evict(tmp_path, 2 * 8192) == 8192
    assert boots.ids(tmp_path) == NAMES[1:]
    assert boots.evict(tmp_path, 0) == 2 * 8192
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
