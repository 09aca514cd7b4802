"""Packages are unpacked as dpkg-deb does it, and nothing in one reaches out of its folder."""

import io
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from utilityvm.boot import deb
from utilityvm.kit.errors import Corrupt, Unsupported
from utilityvm.kit.proc import run_tool

MODES: Mapping[str, str] = {"data.tar": "w", "data.tar.gz": "w:gz", "data.tar.xz": "w:xz"}


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


def package(path: Path, *members: tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo, data: str = "data.tar.xz") -> Path:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=MODES[data]) as archive:  # type: ignore[call-overload]
        for entry in members:
            info, text = entry if isinstance(entry, tuple) else (entry, b"")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    path.write_bytes(ar({"debian-binary": b"2.0\n", "control.tar.xz": b"odd", data: content.getvalue()}))
    return path


def ar(members: Mapping[str, bytes]) -> bytes:
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2))
    return b"".join(parts)


def tree(folder: Path) -> dict[str, tuple[int, str | bytes]]:
    """Every path below a folder, with its mode and content."""
    found: dict[str, tuple[int, str | bytes]] = {}
    for path in folder.rglob("*"):
        link, mode = path.is_symlink(), path.lstat().st_mode
        found[str(path.relative_to(folder))] = (mode, str(path.readlink()) if link else b"" if path.is_dir() else path.read_bytes())
    return found


@pytest.mark.parametrize("data", MODES)
def test_files_folders_and_links_are_unpacked(tmp_path: Path, data: str) -> None:
    entries: list[tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo] = [
        member("./usr/bin", tarfile.DIRTYPE, mode=0o755),
        (member("./usr/bin/tool", mode=0o4755), b"program"),
        (member("./no/folder/listed", mode=0o600), b"odd"),
        member("./usr/bin/hard", tarfile.LNKTYPE, "./usr/bin/tool"),
        member("./usr/bin/soft", tarfile.SYMTYPE, "../../no/folder/listed"),
        member("./usr/bin/absolute", tarfile.SYMTYPE, "/no/folder/listed"),
        member("./device", tarfile.CHRTYPE),
    ]
    deb.unpack(package(tmp_path / "a.deb", *entries, data=data), tmp_path / "out")
    assert (tmp_path / "out/usr/bin/tool").read_bytes() == (tmp_path / "out/usr/bin/hard").read_bytes() == b"program"
    assert (tmp_path / "out/usr/bin/tool").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "out/no/folder/listed").stat().st_mode & 0o7777 == 0o600
    assert (tmp_path / "out/usr/bin/soft").read_bytes() == b"odd"
    assert (tmp_path / "out/usr/bin/absolute").readlink() == Path("../../no/folder/listed")
    assert not (tmp_path / "out/device").exists()


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not there to compare with")
def test_what_dpkg_deb_packs_is_unpacked_to_the_same(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "DEBIAN").mkdir(parents=True)
    (source / "DEBIAN/control").write_text(
        "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a\n"
    )
    (source / "deep" / ("long" * 40)).mkdir(parents=True)
    (source / "deep" / ("long" * 40) / "file").write_bytes(os.urandom(100_001))
    (source / "link").symlink_to("deep")
    os.link(source / "deep" / ("long" * 40) / "file", source / "hard")
    run_tool(["dpkg-deb", "-Zxz", "--root-owner-group", "--build", source, tmp_path / "a.deb"], within=60)
    run_tool(["dpkg-deb", "--extract", tmp_path / "a.deb", tmp_path / "theirs"], within=60)
    deb.unpack(tmp_path / "a.deb", tmp_path / "ours")
    assert tree(tmp_path / "ours") == tree(tmp_path / "theirs")


EVIL = {
    "a path with ..": [member("../evil")],
    "an absolute path": [member("/evil")],
    "a link upwards": [member("./link", tarfile.SYMTYPE, "../evil")],
    "a link that leads back over another": [
        member("./a/b", tarfile.SYMTYPE, "../top"),
        member("./link", tarfile.SYMTYPE, "a/b/../../evil"),
    ],
    "a hard link to the outside": [member("./hard", tarfile.LNKTYPE, "../evil")],
    "a file through a link": [member("./top", tarfile.DIRTYPE), member("./link", tarfile.SYMTYPE, "top"), member("./link/evil")],
    "a folder in place of a link": [member("./link", tarfile.SYMTYPE, "/etc"), member("./link", tarfile.DIRTYPE)],
    "a file over a link": [member("./link", tarfile.SYMTYPE, "/etc/passwd"), member("./link")],
    "a file as a folder": [member("./file"), member("./file/evil")],
}


@pytest.mark.parametrize("name", EVIL)
def test_nothing_reaches_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "inner").mkdir()
    path = package(tmp_path / "a.deb", *EVIL[name])
    with pytest.raises(Corrupt, match=r"a\.deb: "):
        deb.unpack(path, tmp_path / "inner" / "out")
    assert {found.name for found in tmp_path.rglob("*evil*")} == set()
    assert {found.name for found in tmp_path.iterdir()} == {"a.deb", "inner"}


def test_a_package_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = package(tmp_path / "a.deb", (member("./file"), os.urandom(5000))).read_bytes()
    for length in {*range(0, 300, 7), *range(300, len(whole) - 1100, 501)}:
        (tmp_path / "cut.deb").write_bytes(whole[:length])
        with pytest.raises(Corrupt, match=r"cut\.deb: "):
            deb.unpack(tmp_path / "cut.deb", tmp_path / f"out{length}")


def test_too_many_bytes_are_refused_before_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deb, "MAX_UNPACKED", 9)
    with pytest.raises(Corrupt, match="more than 9 bytes"):
        deb.unpack(package(tmp_path / "a.deb", (member("./a"), b"12345"), (member("./b"), b"12345")), tmp_path / "out")
    assert not (tmp_path / "out" / "b").exists()


def test_an_unknown_compression_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(ar({"data.tar.lzip9": b"LZIP"}))
    with pytest.raises(Unsupported, match=r"data\.tar\.lzip9"):
        deb.unpack(tmp_path / "a.deb", tmp_path / "out")
