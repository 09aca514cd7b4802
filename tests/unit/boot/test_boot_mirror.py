"""A mirror is believed only where Debian's signature says so. The archive here is signed with a key of the tests' own."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.unit.boot.repository import DATE, Answer, Key, Repository, send
from utilityvm.boot import fetch, mirror, pins, release
from utilityvm.boot.mirror import Mirror
from utilityvm.boot.packages import Package, Packages
from utilityvm.kit.errors import Corrupt, DeadlineExceeded, HostError, InvalidOptions, NotFound, UtilityVMError
from utilityvm.kit.files import FileLock

pytestmark = pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not there to sign with: make setup")

CONTENT = bytes(range(256)) * 4096
LATER = (DATE + timedelta(days=30)).timestamp()
INRELEASE = "/debian/dists/bookworm/InRelease"
NO_PINS = pins.Pins(suite="bookworm", date=datetime.fromtimestamp(0, UTC), packages=())


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Key]:
    made = Key(tmp_path_factory.mktemp("key"))
    yield made
    made.close()


@pytest.fixture
def repository(key: Key, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """A repository with one package, crun, and what it depends on."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Repository(key).serving() as served:
        served.add("crun", "1.8-1", CONTENT, Depends="libc6 (>= 2.34), libyajl2:any | other, virtual")
        served.add("libc6", "2.36-9", b"libc", Depends="crun")
        served.add("libyajl2", "2.1", b"yajl", Depends="libc6")
        served.publish()
        yield served


class Host:
    """A host that asks a repository."""

    def __init__(self, folder: Path, key: Key) -> None:
        self.cache, self.key = folder / "cache", key

    def mirror(self, *urls: str, pinned: pins.Pins = NO_PINS, newest: bool = True, now: float = LATER) -> Mirror:
        return Mirror(urls, self.cache, pinned, newest=newest, keyring=self.key.keyring, now=lambda: now)

    def fetch(self, repository: Repository, *names: str) -> list[Package]:
        return Packages(self.cache, self.mirror(repository.url)).fetch(names)

    def packages(self) -> set[str]:
        return {path.name for path in self.cache.glob("*.deb")}


@pytest.fixture
def host(tmp_path: Path, key: Key) -> Host:
    return Host(tmp_path, key)


def test_a_package_is_found_fetched_and_kept(repository: Repository, host: Host) -> None:
    (package,) = host.fetch(repository, "crun")
    assert (package.name, package.version, package.file_name, package.size) == ("crun", "1.8-1", "crun_1.8-1_amd64.deb", len(CONTENT))
    assert (host.cache / package.file_name).read_bytes() == CONTENT
    asked = len(repository.requests)
    assert host.fetch(repository, "crun") == [package]
    assert [path for path, _ in repository.requests[asked:]] == [INRELEASE]


def test_dependencies_are_the_first_alternatives_and_the_closure_leaves_out_what_nobody_has(repository: Repository, host: Host) -> None:
    archive = host.mirror(repository.url)
    assert archive.dependencies("crun") == ["libc6", "libyajl2", "virtual"]
    assert archive.closure("crun") == ["crun", "libc6", "libyajl2"]


def test_the_newest_of_several_versions_is_taken(repository: Repository, host: Host) -> None:
    repository.add("crun", "1.10-1", b"newer")
    repository.add("crun", "1.9-1", b"older")
    repository.publish()
    assert host.fetch(repository, "crun")[0].version == "1.10-1"


def test_a_list_is_asked_for_by_its_digest_where_the_release_says_so(repository: Repository, host: Host) -> None:
    del repository.files[repository.list_path]
    repository.publish(by_hash=True)
    assert host.fetch(repository, "crun")[0].version == "1.8-1"


def test_a_mirror_of_the_security_archive_is_joined_with_the_first(repository: Repository, host: Host, key: Key) -> None:
    with Repository(key).serving() as security:
        security.add("crun", "1.8-1+deb12u1", b"mended")
        security.publish(suite="bookworm-security", valid_for=timedelta(days=40))
        archive = host.mirror(repository.url, security.url)
        packages = Packages(host.cache, archive).fetch(["crun", "libc6"])
    assert [package.version for package in packages] == ["1.8-1+deb12u1", "2.36-9"]
    assert (host.cache / packages[0].file_name).read_bytes() == b"mended"


def test_an_epoch_is_written_in_the_cache_as_apt_does(repository: Repository, host: Host) -> None:
    repository.add("busybox-static", "1:1.35", b"busybox")
    path = "/debian/pool/busybox-static_1%3a1.35.deb"
    repository.publish()
    assert host.fetch(repository, "busybox-static")[0].file_name == "busybox-static_1%3a1.35_amd64.deb"
    assert repository.asked(path) == [""]


# Pins


def pinned(package: Package, **changes: str) -> pins.Pins:
    pin = {"name": package.name, "version": package.version, "sha256": package.sha256, **changes}
    return pins.Pins(suite="bookworm", date=DATE, packages=(pins.Pin(**pin),))


def test_the_pinned_version_is_used_though_a_newer_one_is_there(repository: Repository, host: Host) -> None:
    (package,) = host.fetch(repository, "crun")
    repository.add("crun", "1.10-1", b"newer")
    repository.publish(date=DATE + timedelta(days=1))
    assert host.mirror(repository.url, pinned=pinned(package), newest=False).find(["crun"]) == [package]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "1.7-1"}, r"package crun: pinned is 1\.7-1 .*, the mirror offers 1\.8-1"),
        ({"sha256": "0" * 64}, r"package crun: pinned is 1\.8-1 with digest 000000000000\.\.\., the mirror offers 1\.8-1"),
        ({"name": "other"}, r"package crun: the mirror offers 1\.8-1, and no version of it is pinned"),
    ],
)
def test_what_is_not_pinned_is_refused_with_both_versions(repository: Repository, host: Host, changes: dict[str, str], said: str) -> None:
    (package,) = host.fetch(repository, "crun")
    with pytest.raises(NotFound, match=said) as caught:
        host.mirror(repository.url, pinned=pinned(package, **changes), newest=False).find(["crun"])
    assert "as of 2026-07-11" in caught.value.hint
    assert "--newest" in caught.value.hint


def test_a_package_that_is_not_there_is_named(repository: Repository, host: Host) -> None:
    with pytest.raises(NotFound, match="package nothing: the mirror's list does not have it"):
        host.fetch(repository, "nothing")


# Signatures and dates


@pytest.fixture(params=["gpgv", "sqv"])
def verifier(repository: Repository, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A host that has only this tool, once the repository is made."""
    assert repository.files
    name = str(request.param)
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not there: make setup")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / name).symlink_to(path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return name


@pytest.mark.usefixtures("verifier")
def test_a_signed_release_is_believed(repository: Repository, host: Host) -> None:
    text = release.signed_text(repository.files[INRELEASE], host.key.keyring, "InRelease")
    assert release.parse(text, "InRelease").codename == "bookworm"


BEGIN = b"-----BEGIN PGP SIGNATURE-----"
TAMPERED: Mapping[str, Callable[[bytes], bytes]] = {
    "a changed word": lambda data: data.replace(b"Origin: Test", b"Origin: Tast"),
    "a line more": lambda data: data.replace(b"SHA256:\n", b"SHA256:\n " + b"0" * 64 + b" 1 main/x\n"),
    "a text before it": lambda data: b"Codename: bookworm\n" + data,
    "a text behind it": lambda data: data + b"SHA256:\n",
    "a text among its headers": lambda data: data.replace(b"\n\n", b"\nCodename: evil\n\n", 1),
    "two texts": lambda data: data + data,
    "no signature": lambda data: data.split(BEGIN)[0],
    "an empty signature": lambda data: data.split(BEGIN)[0] + BEGIN + b"\n\n-----END PGP SIGNATURE-----\n",
    "not a text": lambda _: b"\xff\xfe\x00",
    "nothing": lambda _: b"",
}


@pytest.mark.usefixtures("verifier")
@pytest.mark.parametrize("name", TAMPERED)
def test_a_release_that_was_tampered_with_is_refused(repository: Repository, host: Host, name: str) -> None:
    repository.files[INRELEASE] = TAMPERED[name](repository.files[INRELEASE])
    with pytest.raises(Corrupt, match=r"InRelease: (has no good signature|is not a signed text)"):
        host.fetch(repository, "crun")
    assert host.packages() == set()


@pytest.mark.usefixtures("verifier")
def test_a_signature_by_another_key_is_refused(repository: Repository, host: Host) -> None:
    archive = Mirror([repository.url], host.cache, NO_PINS, newest=True, now=lambda: LATER)
    with pytest.raises(Corrupt, match=r"has no good signature by a key of debian-archive-bookworm\.gpg"):
        archive.find(["crun"])


def test_a_host_without_a_verifier_is_told_what_to_install(
    repository: Repository, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="gpgv: command not found") as caught:
        host.fetch(repository, "crun")
    assert "install the package gpgv, or sqv" in caught.value.hint


def test_a_release_of_another_suite_is_refused(repository: Repository, host: Host) -> None:
    repository.publish(codename="trixie")
    with pytest.raises(Corrupt, match="is of trixie, not of bookworm"):
        host.fetch(repository, "crun")


def test_a_release_that_has_expired_is_refused(repository: Repository, host: Host) -> None:
    repository.publish(valid_for=timedelta(days=7))
    with pytest.raises(Corrupt, match="was valid until 2026-07-18 10:16 UTC"):
        host.fetch(repository, "crun")


def test_an_old_release_is_refused_once_a_newer_one_was_seen(repository: Repository, host: Host) -> None:
    old = dict(repository.files)
    repository.add("crun", "1.9-1", b"mended")
    repository.publish(date=DATE + timedelta(days=1))
    host.fetch(repository, "libc6")
    repository.files = old
    with pytest.raises(Corrupt, match="is of 2026-07-11 10:16, and one of 2026-07-12 10:16 is known"):
        host.fetch(repository, "crun")


@pytest.mark.parametrize("newest", [True, False])
def test_a_release_older_than_the_pins_is_refused(repository: Repository, host: Host, newest: bool) -> None:
    (package,) = host.fetch(repository, "crun")
    repository.publish(date=DATE - timedelta(days=1))
    with pytest.raises(Corrupt, match="is of 2026-07-10 10:16, and one of 2026-07-11 10:16 is known"):
        host.mirror(repository.url, pinned=pinned(package), newest=newest).find(["crun"])


# A server that misbehaves


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(bytes(1 << 16))


def cut_off(request: BaseHTTPRequestHandler) -> None:
    send(request, 200, b"-----BEGIN", Content_Length="100000")


def not_http(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"SSH-2.0-server\r\n\r\n")


def to_a_file(request: BaseHTTPRequestHandler) -> None:
    send(request, 302, b"", Location="file:///etc/passwd")


def in_circles(request: BaseHTTPRequestHandler) -> None:
    send(request, 302, b"", Location=request.path)


def broken(request: BaseHTTPRequestHandler) -> None:
    send(request, 503, b"busy")


MISBEHAVIOUR: Mapping[str, tuple[Answer, type[UtilityVMError], str]] = {
    "endless": (endless, Corrupt, "has more than"),
    "cut off": (cut_off, HostError, "ended after"),
    "not HTTP": (not_http, HostError, "SSH-2.0-server"),
    "sent to a file": (to_a_file, HostError, "302"),
    "sent in circles": (in_circles, HostError, "302"),
    "broken": (broken, HostError, "the mirror answered 503"),
}


@pytest.mark.parametrize("name", MISBEHAVIOUR)
@pytest.mark.parametrize("what", ["release", "list", "package"])
def test_a_mirror_that_misbehaves_ends_in_an_error_and_nothing_is_trusted(repository: Repository, host: Host, name: str, what: str) -> None:
    answer, kind, said = MISBEHAVIOUR[name]
    repository.instead[{"release": INRELEASE, "list": repository.list_path, "package": "/debian/pool/crun_1.8-1.deb"}[what]] = answer
    with pytest.raises(kind, match=said):
        host.fetch(repository, "crun")
    assert host.packages() == set()
    repository.instead.clear()
    (found,) = _second_try(repository, host) if name == "cut off" and what != "release" else host.fetch(repository, "crun")
    assert (host.cache / found.file_name).read_bytes() == CONTENT


def _second_try(repository: Repository, host: Host) -> list[Package]:
    """What came of a file that was cut off is continued, and found out when it was not the file's beginning."""
    with pytest.raises(Corrupt):
        host.fetch(repository, "crun")
    return host.fetch(repository, "crun")


@pytest.mark.parametrize("what", ["list", "package"])
def test_other_bytes_of_the_same_length_are_refused_and_not_kept(repository: Repository, host: Host, what: str) -> None:
    path = {"list": repository.list_path, "package": "/debian/pool/crun_1.8-1.deb"}[what]
    repository.files[path] = repository.files[path][::-1]
    with pytest.raises(Corrupt, match=r"is not what the (signed release|archive's) list"):
        host.fetch(repository, "crun")
    assert host.packages() == set()
    assert list(host.cache.glob(".*.part")) == []


@pytest.mark.parametrize("fields", [{"SHA256": "1234"}, {"Size": "-1"}, {"Version": "../../evil"}, {"Architecture": "a/b"}])
def test_a_list_that_says_nonsense_about_a_package_is_refused(repository: Repository, host: Host, fields: dict[str, str]) -> None:
    repository.add("odd", "1", b"odd", **fields)
    repository.publish()
    with pytest.raises(Corrupt, match="package odd: the mirror's list says something"):
        host.fetch(repository, "odd")


def test_a_list_larger_than_the_bound_is_not_even_asked_for(repository: Repository, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "MAX_LIST", 16)
    with pytest.raises(Corrupt, match=r"lists no main/binary-amd64/Packages\.xz that can be used"):
        host.fetch(repository, "crun")
    assert repository.asked(repository.list_path) == []


def _forever(repository: Repository) -> None:
    repository.released.wait(60)


def test_a_silent_mirror_is_given_up(repository: Repository, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "READ_SECONDS", 0.05)
    repository.instead[INRELEASE] = lambda _: _forever(repository)
    with pytest.raises(DeadlineExceeded, match=r"no byte came within 0\.05 s"):
        host.fetch(repository, "crun")


def test_a_mirror_that_goes_silent_in_the_middle_is_given_up(repository: Repository, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "READ_SECONDS", 0.05)

    def pause(request: BaseHTTPRequestHandler) -> None:
        send(request, 200, CONTENT[:1000], Content_Length=str(len(CONTENT)))
        repository.released.wait(60)

    repository.instead["/debian/pool/crun_1.8-1.deb"] = pause
    with pytest.raises(DeadlineExceeded, match="no byte came within"):
        host.fetch(repository, "crun")


def test_a_download_that_drips_is_given_up_as_a_whole(repository: Repository, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "FILE_SECONDS", 0)
    with pytest.raises(DeadlineExceeded, match="InRelease: not there after 0 s"):
        host.fetch(repository, "crun")


def test_a_mirror_that_cannot_be_reached_is_named(repository: Repository, host: Host) -> None:
    url = repository.url
    with Repository(host.key).serving() as gone:
        url = gone.url
    with pytest.raises(HostError, match=r"InRelease: \[Errno 111\] Connection refused"):
        host.mirror(url).find(["crun"])


# Interruptions


def test_an_interrupted_download_is_not_trusted_and_is_continued(repository: Repository, host: Host) -> None:
    path = "/debian/pool/crun_1.8-1.deb"

    chunks = fetch._chunks

    def interrupted(url: str, answer: HTTPResponse) -> Iterator[bytes]:
        received = chunks(url, answer)
        yield next(received)
        if url.endswith("crun_1.8-1.deb"):
            raise KeyboardInterrupt
        yield from received

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "_chunks", interrupted)
        with pytest.raises(KeyboardInterrupt):
            host.fetch(repository, "libc6", "crun")
    assert host.packages() == {"libc6_2.36-9_amd64.deb"}
    (part,) = host.cache.glob(".*.part")
    have = part.stat().st_size
    assert 0 < have < len(CONTENT)
    host.fetch(repository, "libc6", "crun")
    assert repository.asked(path) == ["", f"bytes={have}-"]
    assert (host.cache / "crun_1.8-1_amd64.deb").read_bytes() == CONTENT
    assert repository.asked("/debian/pool/libc6_2.36-9.deb") == [""]


def test_a_server_that_knows_no_ranges_sends_the_whole(repository: Repository, host: Host) -> None:
    (package,) = host.mirror(repository.url).find(["crun"])
    (host.cache / f".{package.sha256}.part").write_bytes(b"an old beginning")
    repository.instead["/debian/pool/crun_1.8-1.deb"] = lambda request: send(request, 200, CONTENT)
    host.fetch(repository, "crun")
    assert (host.cache / package.file_name).read_bytes() == CONTENT


def test_a_beginning_that_is_longer_than_the_whole_is_not_used(repository: Repository, host: Host) -> None:
    (package,) = host.mirror(repository.url).find(["libc6"])
    (host.cache / f".{package.sha256}.part").write_bytes(CONTENT)
    host.fetch(repository, "libc6")
    assert (host.cache / package.file_name).read_bytes() == b"libc"


def test_a_second_download_to_the_cache_waits_and_says_so(repository: Repository, host: Host) -> None:
    archive = host.mirror(repository.url)
    archive.find(["libc6"])
    first = FileLock(host.cache)
    first.acquire()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        first.release()

    Packages(host.cache, archive, say).fetch(["libc6"])
    assert said == [f"waiting for another download to {host.cache}"]


# Addresses and proxies


def test_a_proxy_of_the_environment_is_used(repository: Repository, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", f"http://{repository.host}")
    Packages(host.cache, host.mirror("http://mirror.invalid/debian/")).fetch(["libc6"])
    assert repository.requests[0][0] == f"http://mirror.invalid{INRELEASE}"


def test_a_server_that_is_no_mirror_is_named(repository: Repository, host: Host) -> None:
    with pytest.raises(NotFound, match="/elsewhere: has neither dists/bookworm nor dists/bookworm-security"):
        host.mirror(f"http://{repository.host}/elsewhere").find(["crun"])


@pytest.mark.parametrize(
    "url", ["file:///srv/debian", "ftp://host/debian", "/srv/debian", "http://", "http://a:b@host/", "http://h:99999/", "http://h/a b", ""]
)
def test_an_address_that_cannot_be_asked_is_refused(host: Host, url: str) -> None:
    with pytest.raises(InvalidOptions, match="not the address of a mirror") as caught:
        host.mirror(url)
    assert isinstance(caught.value, UtilityVMError)
