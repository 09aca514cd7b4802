"""HTTP for downloads from a server that is not trusted: bounded in size and time, and never anything but HTTP and HTTPS.

Proxies are those of the environment (``http_proxy``, ``https_proxy``, ``no_proxy``), certificates those of OpenSSL (``SSL_CERT_FILE``).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from utilityvm.kit.errors import Corrupt, DeadlineExceeded, HostError, InvalidOptions, NotFound

READ_SECONDS = 30.0
"""Longest silence of a server."""
FILE_SECONDS = 1800.0
"""Longest download of one file."""

_CHUNK = 1 << 18
_HANDLERS = (
    request.ProxyHandler,
    request.UnknownHandler,  # refuses what has no handler: file:, ftp:, data:, also when a server redirects there
    request.HTTPHandler,
    request.HTTPSHandler,
    request.HTTPDefaultErrorHandler,
    request.HTTPRedirectHandler,
    request.HTTPErrorProcessor,
)


def check_url(url: str) -> str:
    """Return the address of a mirror without a slash at its end.

    Raises:
        InvalidOptions: it is not one that can be asked.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or not url.isascii() or not url.isprintable() or set(url) & set(" ?#@"):
        raise InvalidOptions(f"{url}: not the address of a mirror: http or https, a host, a path", hint="--mirror http://HOST/debian")
    return url.rstrip("/")


def read(url: str, at_most: int) -> bytes:
    """Return what is at `url`.

    Raises:
        NotFound: the server has no such thing.
        Corrupt: it has more than `at_most` bytes.
        DeadlineExceeded: the server was silent for too long, or it took too long as a whole.
        HostError: the server cannot be reached, or did not answer as it should.
    """
    data = bytearray()
    with _opened(url, 0) as answer:
        for chunk in _chunks(url, answer):
            data += chunk
            if len(data) > at_most:
                raise Corrupt(f"{url}: has more than {at_most} bytes")
        if answer.length:
            raise _cut_off(url, len(data), len(data) + answer.length)
    return bytes(data)


def download(url: str, path: Path, size: int) -> None:
    """Bring the `size` bytes at `url` into the file `path`, behind what an interrupted download has left there. Digests are the caller's.

    Raises:
        NotFound: the server has no such thing.
        Corrupt: it has more than `size` bytes.
        DeadlineExceeded: the server was silent for too long, or it took too long as a whole.
        HostError: the server cannot be reached, ended too early, or did not answer as it should.
    """
    have = path.stat().st_size if path.exists() else 0
    if have >= size:
        path.unlink(missing_ok=True)
        have = 0
    with _opened(url, have) as answer, path.open("ab" if answer.status == 206 else "wb") as file:
        have = file.tell()
        for chunk in _chunks(url, answer):
            have += len(chunk)
            if have > size:
                path.unlink()
                raise Corrupt(f"{url}: has more than {size} bytes")
            file.write(chunk)
    if have < size:
        raise _cut_off(url, have, size)


def _cut_off(url: str, have: int, size: int) -> HostError:
    return HostError(f"{url}: ended after {have} of {size} bytes", hint="try again")


@contextmanager
def _opened(url: str, start: int) -> Iterator[HTTPResponse]:
    opener = request.OpenerDirector()
    opener.addheaders = [("User-Agent", "utilityvm"), *([("Range", f"bytes={start}-")] if start else [])]
    for handler in _HANDLERS:
        opener.add_handler(handler())
    try:
        with opener.open(url, timeout=READ_SECONDS) as answer:
            yield answer
    except HTTPError as error:
        error.close()
        if error.code in {404, 410}:
            raise NotFound(f"{url}: the mirror does not have it ({error.code})", hint="is it a mirror of Debian?") from error
        raise HostError(f"{url}: the mirror answered {error.code}: {error.msg}") from error
    except (TimeoutError, URLError, HTTPException, ConnectionError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            raise DeadlineExceeded(f"{url}: no byte came within {READ_SECONDS:g} s") from error
        raise HostError(
            f"{url}: {reason or type(reason).__name__}", hint="is the address right? a proxy is taken from http_proxy"
        ) from error


def _chunks(url: str, answer: HTTPResponse) -> Iterator[bytes]:
    deadline = time.monotonic() + FILE_SECONDS
    while chunk := answer.read1(_CHUNK):
        yield chunk
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"{url}: not there after {FILE_SECONDS:g} s")
