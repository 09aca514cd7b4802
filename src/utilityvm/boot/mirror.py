"""Packages from a mirror of Debian 12 over HTTP, for hosts without apt: the mirror is not trusted, Debian's signature is.

`InRelease` must be signed by a key of the keyring; it has the digest of the suite's list `Packages.xz`, and that the digests of the
packages. A mirror of the security archive may be named too. Which versions are used: the pinned ones, or the newest offered.
"""

import lzma
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import final

from utilityvm.boot import fetch, pins, release
from utilityvm.boot.index import Index, Offer, version_key
from utilityvm.boot.packages import Package
from utilityvm.boot.release import Listed, Release
from utilityvm.kit.errors import Corrupt, NotFound
from utilityvm.kit.files import FileLock, digest, make_folder, replace

SUITES = ("bookworm", "bookworm-security")
"""A mirror has the first or, when it is one of the security archive, the second."""
MAX_RELEASE = 4 << 20
"""Most bytes of an `InRelease`."""
MAX_LIST = 256 << 20
"""Most bytes of an uncompressed `Packages`."""

_LIST = "main/binary-amd64/Packages"


@final
class Mirror:
    """The archive behind the mirrors `urls`. Lists and unfinished downloads are kept in the folder `cache`, which is made when missing.

    Only what `pinned` names is used, in exactly that version; or with `newest` the newest version that the signed lists offer. `now` is
    the clock by which lists get out of date, in seconds since 1970.

    Raises:
        InvalidOptions: an address is none that can be asked.
    """

    def __init__(
        self,
        urls: Sequence[str],
        cache: Path,
        pinned: pins.Pins,
        *,
        newest: bool = False,
        keyring: Path = release.KEYRING,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._urls = [fetch.check_url(url) for url in urls]
        self._cache, self._pinned, self._newest, self._keyring, self._now = cache, pinned, newest, keyring, now

    def dependencies(self, name: str) -> list[str]:
        """Return the packages that `name` depends on, directly, in its own order."""
        return list(self._offer(name).depends)

    def closure(self, name: str) -> list[str]:
        """Return `name` and all that it depends on, nearest first. What only other packages provide is left out."""
        found = [name]
        for package in found:
            found += [need for need in self._offer(package).depends if need not in found and self._offers(need)]
        return found

    def find(self, names: Sequence[str]) -> list[Package]:
        """Return the pinned or newest version of each of `names`."""
        return [self._offer(name).package for name in names]

    def download(self, packages: Sequence[Package], folder: Path) -> Iterator[tuple[Package, Path]]:
        """Download packages one by one. What came of one that was interrupted is kept, and the next download goes on from there."""
        for package in packages:
            offer = self._offer(package.name)
            path = _unfinished(folder, package.sha256)
            fetch.download(offer.url, path, package.size)
            yield package, path

    def released(self) -> datetime:
        """Return the date of the first mirror's signed release."""
        return self._suites[0][0].date

    def _offers(self, name: str) -> list[Offer]:
        return [offer for _, index in self._suites for offer in index.offers(name)]

    def _offer(self, name: str) -> Offer:
        offers = sorted(self._offers(name), key=lambda offer: version_key(offer.package.version))
        if not offers:
            raise NotFound(f"package {name}: the mirror's list does not have it", hint="name a mirror of Debian's main archive too")
        if self._newest:
            return offers[-1]
        newest = offers[-1].package.version
        hint = f"name a mirror that has Debian as of {self._pinned.date:%Y-%m-%d}; or take what the signed list offers: --newest"
        pin = next((pin for pin in self._pinned.packages if pin.name == name), None)
        if pin is None:
            raise NotFound(f"package {name}: the mirror offers {newest}, and no version of it is pinned", hint=hint)
        for offer in offers:
            if (offer.package.version, offer.package.sha256) == (pin.version, pin.sha256):
                return offer
        raise NotFound(f"package {name}: pinned is {pin.version} with digest {pin.sha256[:12]}..., the mirror offers {newest}", hint=hint)

    @cached_property
    def _suites(self) -> list[tuple[Release, Index]]:
        make_folder(self._cache)
        with FileLock(self._cache):
            return [self._load(url) for url in self._urls]

    def _load(self, url: str) -> tuple[Release, Index]:
        suite, place, data = _find_suite(url)
        what = f"{place}/InRelease"
        found = release.parse(release.signed_text(data, self._keyring, what), what)
        seen = self._cache / f"{suite}.date"
        release.check(found, suite, self._now(), self._floor(suite, seen), what)
        if not seen.is_file() or _date(seen) < found.date:
            replace(seen, f"{found.date.isoformat()}\n".encode())
        listed, plain = (found.files.get(name) for name in (f"{_LIST}.xz", _LIST))
        if listed is None or plain is None or plain.size > MAX_LIST or listed.size > MAX_LIST:
            raise Corrupt(f"{what}: lists no {_LIST}.xz that can be used")
        path = self._cache / f"{suite}.packages.xz"
        if not path.is_file() or digest(path) != listed.sha256:
            self._bring_list(f"{place}/{_list_name(found, listed)}", listed, path)
        return found, Index(_uncompressed(path, plain.size), url)

    def _floor(self, suite: str, seen: Path) -> datetime | None:
        """Return the date that a release must at least have. Where versions are pinned, an older one is no danger."""
        known = [self._pinned.date] if self._pinned.suite == suite else []
        if self._newest and seen.is_file():
            known.append(_date(seen))
        return max(known, default=None)

    def _bring_list(self, url: str, listed: Listed, path: Path) -> None:
        part = _unfinished(self._cache, listed.sha256)
        fetch.download(url, part, listed.size)
        if digest(part) != listed.sha256:
            part.unlink()
            raise Corrupt(f"{url}: is not what the signed release lists", hint="the mirror may be changing just now: try again")
        part.replace(path)


def _date(seen: Path) -> datetime:
    try:
        return datetime.fromisoformat(seen.read_text().strip()).astimezone(UTC)
    except ValueError as error:
        raise Corrupt(f"{seen}: is not a date", hint=f"remove {seen}") from error


def _find_suite(url: str) -> tuple[str, str, bytes]:
    for suite in SUITES:
        place = f"{url}/dists/{suite}"
        try:
            return suite, place, fetch.read(f"{place}/InRelease", MAX_RELEASE)
        except NotFound as error:
            missing = error
    raise NotFound(f"{url}: has neither dists/{' nor dists/'.join(SUITES)}", hint="--mirror http://HOST/debian") from missing


def _list_name(found: Release, listed: Listed) -> str:
    return f"{_LIST.rpartition('/')[0]}/by-hash/SHA256/{listed.sha256}" if found.by_hash else f"{_LIST}.xz"


def _unfinished(folder: Path, sha256: str) -> Path:
    return folder / f".{sha256}.part"


def _uncompressed(path: Path, size: int) -> str:
    try:
        data = lzma.LZMADecompressor().decompress(path.read_bytes(), size + 1)
    except lzma.LZMAError as error:
        raise Corrupt(f"{path}: cannot be uncompressed: {error}") from error
    if len(data) != size:
        raise Corrupt(f"{path}: has {len(data)} bytes when uncompressed, not {size}")
    return data.decode()
