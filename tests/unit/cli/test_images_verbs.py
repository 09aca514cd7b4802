"""The verbs of images: what they print, where, and how they end."""

import io
import json
import os
import stat
import sys
import tarfile
from pathlib import Path

import pytest
from tests.unit.images.samples import Sample, archive, digest, tar

from utilityvm.cli.images import _day
from utilityvm.cli.main import main
from utilityvm.cli.progress import Bar, human
from utilityvm.images.depot import Progress
from utilityvm.images.store import ImageStore, host_platform
from utilityvm.store import boots
from utilityvm.store.layout import Layout

FIRST, SECOND = Sample(architecture=host_platform().architecture), Sample(layers=(tar({"a": b"b"}),), config={"Cmd": ["\x1b[2J"]})
Said = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Places of our own: root's are those of the system, whatever the environment says."""
    own = Layout(tmp_path / "state", tmp_path / "cache", tmp_path / "boot")
    monkeypatch.setattr(Layout, "of_user", lambda: own)
    return own


@pytest.fixture
def imported(tmp_path: Path) -> None:
    for name, sample in (("first:1", FIRST), ("second:1", SECOND)):
        ImageStore.of_user().import_(archive(tmp_path / "a.tar", sample.layout(name)))


def test_import_prints_name_and_digest_and_the_layers_on_standard_error(tmp_path: Path, capsys: Said) -> None:
    path = archive(tmp_path / "a.tar", FIRST.layout("first:1"))
    assert main(["import", str(path)]) == 0
    said = capsys.readouterr()
    assert said.out == f"first:1 {FIRST.digest}\n"
    assert [line.partition(":")[0] for line in said.err.splitlines()] == ["layer 1/2", "layer 2/2"]
    assert main(["import", str(path), "other"]) == 0
    assert capsys.readouterr() == (f"other:latest {FIRST.digest}\n", "")


def test_import_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    class Input:
        buffer = io.BytesIO(tar(FIRST.docker("ada/tool:2")))

        @staticmethod
        def isatty() -> bool:
            return False

    monkeypatch.setattr(sys, "stdin", Input)
    assert main(["import", "-q", "-"]) == 0
    assert capsys.readouterr().out.startswith("ada/tool:2 sha256:")
    monkeypatch.setattr(Input, "isatty", lambda: True)
    assert main(["import", "-"]) == 2
    assert "standard input is a terminal" in capsys.readouterr().err


def test_a_day_that_only_go_has_is_none() -> None:
    assert [_day(text) for text in ("2026-11-30T18:00:00Z", "0001-01-01T00:00:00Z", "")] == ["2026-11-30", "-", "-"]


@pytest.mark.usefixtures("imported")
def test_images_are_listed_for_people_and_for_programs(capsys: Said) -> None:
    assert main(["images"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:3] for row in rows] == [
        ["NAME", "ID", "PLATFORM"],
        ["first:1", digest(FIRST.config_blob)[7:19], f"linux/{FIRST.architecture}"],
        ["second:1", digest(SECOND.config_blob)[7:19], "linux/amd64"],
    ]
    assert main(["images", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(image["name"], image["digest"]) for image in listed] == [
        ("docker.io/library/first:1", FIRST.digest),
        ("docker.io/library/second:1", SECOND.digest),
    ]
    assert main(["images", "-q"]) == 0
    assert capsys.readouterr().out == f"{digest(FIRST.config_blob)}\n{digest(SECOND.config_blob)}\n"


@pytest.mark.usefixtures("imported")
def test_inspect_tells_all_and_steers_no_terminal(capsys: Said, layout: Layout) -> None:
    assert main(["inspect", "first:1", digest(SECOND.config_blob)[7:]]) == 0
    said = capsys.readouterr().out
    first, second = json.loads(said)
    assert (first["config"]["cmd"], first["config"]["env"], second["config"]["cmd"]) == (["sh"], ["A=b"], ["\x1b[2J"])
    assert "\x1b" not in said
    assert [layer["diff_id"] for layer in first["layers"]] == [digest(layer) for layer in reversed(FIRST.layers)]
    assert all(Path(layer["path"]).stat().st_size == layer["size"] for layer in first["layers"])
    assert Path(first["layers"][0]["path"]).parent == layout.images / "layers"


@pytest.mark.usefixtures("imported")
def test_export_writes_a_whole_file_or_none(tmp_path: Path, capsys: Said, layout: Layout) -> None:
    path = tmp_path / "exported.tar"
    assert main(["export", "first:1", str(path)]) == 0
    with tarfile.open(path) as found:
        assert found.getnames()[0] == "index.json"
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
    before = path.read_bytes()
    (layout.images / "blobs" / "sha256" / digest(SECOND.layer_blobs[0])[7:]).write_bytes(b"x")
    assert main(["export", "second:1", str(path)]) == 12
    assert path.read_bytes() == before
    assert main(["export", "missing", str(path)]) == 3
    assert main(["export", "first:1", str(tmp_path / "no" / "where")]) == 3
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name.startswith((".", "exported"))) == ["exported.tar"]
    assert main(["export", "first:1", os.devnull]) == 0
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    capsys.readouterr()


@pytest.mark.usefixtures("imported")
def test_export_writes_to_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["export", "first:1"]) == 0
    with tarfile.open(fileobj=io.BytesIO(capfdbinary.readouterr().out)) as found:
        assert "oci-layout" in found.getnames()


@pytest.mark.usefixtures("imported")
def test_rmi_goes_on_after_a_name_that_it_does_not_know_and_ends_with_its_code(capsys: Said) -> None:
    assert main(["rmi", "nothing", "first:1", "neither"]) == 3
    said = capsys.readouterr()
    assert said.out == "first:1\n"
    assert [line for line in said.err.splitlines() if "hint" not in line] == [
        "uvm: image nothing: is not here",
        "uvm: image neither: is not here",
    ]


@pytest.mark.usefixtures("imported")
def test_rmi_refuses_what_is_used_unless_it_is_forced(capsys: Said) -> None:
    with ImageStore.of_user().hold("first:1") as image:
        assert main(["rmi", "first:1"]) == 4
        assert "a VM uses it" in capsys.readouterr().err
        assert main(["rmi", "-f", "first:1"]) == 0
        assert all(layer.exists() for layer in image.layers)


@pytest.mark.usefixtures("imported")
def test_prune_frees_what_is_nobodys_and_keeps_within_a_size(capsys: Said) -> None:
    assert main(["prune"]) == 0
    assert capsys.readouterr().out == "freed 0 B\n"
    with ImageStore.of_user().hold("second:1"):
        assert main(["prune", "--keep", "0"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[:2] == ["removed first:1", "some of it is in use, and stays until its VM has ended"]
        assert lines[2].startswith("freed ")
    assert main(["prune", "--keep", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["names"] == ["docker.io/library/second:1"]
    assert main(["prune", "--keep", "much"]) == 2


@pytest.mark.usefixtures("imported")
def test_prune_frees_what_is_left_of_a_template_whose_owner_was_killed(capsys: Said, layout: Layout) -> None:
    left = layout.templates / ".new-x"
    left.mkdir(parents=True)
    (left / "memory").write_bytes(bytes(8192))
    assert main(["prune"]) == 0
    assert capsys.readouterr().out != "freed 0 B\n"
    assert list(layout.templates.iterdir()) == []


def template(layout: Layout, name: str) -> Path:
    (folder := layout.templates / name).mkdir(parents=True)
    (folder / "memory").write_bytes(b"x" * 8192)
    return folder


@pytest.mark.usefixtures("imported")
def test_prune_leaves_templates_alone_but_for_those_of_boots_when_room_is_wanted(capsys: Said, layout: Layout) -> None:
    mine, of_boot = template(layout, "mine"), template(layout, boots.id_of("0" * 32))
    assert main(["prune"]) == 0
    assert capsys.readouterr().out == "freed 0 B\n"
    assert main(["prune", "--keep", "10g"]) == 0
    assert capsys.readouterr().out == "freed 8 KiB\n"
    assert (mine.exists(), of_boot.exists()) == (True, False)


@pytest.mark.usefixtures("imported")
def test_df_counts_images_volumes_and_templates(capsys: Said, layout: Layout) -> None:
    layout.volumes.mkdir()
    (layout.volumes / "data.img").write_bytes(b"x" * 8192)
    for name in ("mine", boots.id_of("0" * 32), boots.id_of("1" * 32)):
        template(layout, name)
    assert main(["df", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    usage = ImageStore.of_user().usage()
    assert found == {
        "image_count": 2,
        "volume_count": 1,
        "template_count": 1,
        "boot_template_count": 2,
        "images": usage.blobs,
        "layers": usage.layers,
        "leftovers": 0,
        "volumes": (layout.volumes / "data.img").stat().st_blocks * 512,
        "templates": 8192,
        "boot_templates": 2 * 8192,
    }
    assert main(["df"]) == 0
    names = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["WHAT", "images", "layers", "leftovers", "volumes", "templates", "templates of boots"]


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["inspect", "nothing"], 3, "uvm pull nothing"),
        (["inspect", "busybox"], 3, "uvm boot-files build"),
        (["inspect", "No"], 2, "cannot name an image"),
        (["pull", "No"], 2, "cannot name an image"),
        (["pull", "--platform", "linux", "busybox"], 2, "is not a platform"),
        (["import", "missing.tar", "a"], 3, "uvm: missing.tar: no such file"),
        (["export", "first:1", "missing/a.tar"], 3, "missing: no such file"),
        (["import", os.devnull, "a"], 12, "is empty"),
    ],
)
def test_what_is_wrong_is_told_with_the_code_of_its_kind(words: list[str], code: int, why: str, capsys: Said) -> None:
    assert main(words) == code
    assert why in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_overwrites_itself_on_a_terminal_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = Bar()
    for done in (0, 1, 2, 1024, 2048):
        bar(Progress("layer 1/1", done, 2048))
    bar.close()
    assert terminal.getvalue().split("\r\x1b[K")[1:] == [
        "layer 1/1: 0 % of 2 KiB",
        "layer 1/1: 50 % of 2 KiB",
        "layer 1/1: 100 % of 2 KiB",
        "",
    ]


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (12_900_000, "12.3 MiB"), (5 << 40, "5 TiB"), (5000 << 40, "5000 TiB")],
)
def test_sizes_for_people(size: int, shown: str) -> None:
    assert human(size) == shown
