"""Fetching through an apt-get that behaves: it has one package, counts its downloads, and may send something else than it promised."""

import hashlib
from pathlib import Path

import pytest

from utilityvm.boot.apt import Apt
from utilityvm.boot.packages import Packages
from utilityvm.kit.errors import Corrupt, HostError, NotFound

CONTENT = b"the package"
NAME = "busybox-static_1%3a1.35_amd64.deb"

APT_GET = f"""#!/bin/sh
if [ "$2" = --print-uris ]; then
    [ "$3" = busybox-static ] || {{ echo "E: Unable to locate package $3" >&2; exit 100; }}
    echo "'http://mirror/x.deb' {NAME} {len(CONTENT)} SHA256:{hashlib.sha256(CONTENT).hexdigest()}"
else
    echo "$*" >>"$ARCHIVE/downloads"
    cp "$ARCHIVE/content" '{NAME}'
fi
"""


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("bin", "archive"):
        (tmp_path / folder).mkdir()
    for tool, text in {"apt-get": APT_GET, "apt-cache": "#!/bin/sh\n"}.items():
        (tmp_path / "bin" / tool).write_text(text)
        (tmp_path / "bin" / tool).chmod(0o755)
    (tmp_path / "archive" / "content").write_bytes(CONTENT)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("ARCHIVE", str(tmp_path / "archive"))
    return tmp_path / "archive"


def downloads(archive: Path) -> int:
    log = archive / "downloads"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_package_is_downloaded_once(archive: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (package,) = Packages(cache, Apt()).fetch(["busybox-static"])
    assert (package.name, package.version) == ("busybox-static", "1:1.35")
    assert [(path.name, path.read_bytes()) for path in cache.iterdir()] == [(NAME, CONTENT)]
    assert Packages(cache, Apt()).fetch(["busybox-static"]) == [package]
    assert downloads(archive) == 1
    assert (archive / "downloads").read_text() == "download --quiet busybox-static=1:1.35\n"


def test_a_damaged_package_in_the_cache_is_downloaded_again(archive: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    Packages(cache, Apt()).fetch(["busybox-static"])
    (cache / NAME).write_bytes(CONTENT[::-1])
    Packages(cache, Apt()).fetch(["busybox-static"])
    assert (cache / NAME).read_bytes() == CONTENT
    assert downloads(archive) == 2


def test_a_download_that_is_not_what_was_promised_is_refused_and_not_kept(archive: Path, tmp_path: Path) -> None:
    (archive / "content").write_bytes(CONTENT[::-1])
    with pytest.raises(Corrupt, match="is not what the archive's lists promise"):
        Packages(tmp_path / "cache", Apt()).fetch(["busybox-static"])
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_download_that_fails_says_what_may_help(archive: Path, tmp_path: Path) -> None:
    (archive / "content").unlink()
    with pytest.raises(HostError, match="apt-get download") as caught:
        Packages(tmp_path / "cache", Apt()).fetch(["busybox-static"])
    assert "apt-get update" in caught.value.hint


@pytest.mark.usefixtures("archive")
def test_a_package_that_the_lists_lack_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="Unable to locate package nothing"):
        Packages(tmp_path / "cache", Apt()).fetch(["nothing"])
