"""A small archive in Debian's form, signed with a key of its own, and a server on the loopback interface that can misbehave."""

import hashlib
import lzma
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from utilityvm.kit.proc import run_tool

LIST = "main/binary-amd64/Packages"
DATE = datetime(2026, 7, 11, 10, 16, 37, tzinfo=UTC)

Answer = Callable[[BaseHTTPRequestHandler], None]


class Key:
    """A key that signs, and the keyring that has its public half. `close` ends what gpg has left running."""

    def __init__(self, folder: Path) -> None:
        # gpg's agent listens on a socket in this folder, and the path of a socket must be short
        self._home = Path(tempfile.mkdtemp(prefix="uvm-gpg-", dir="/tmp"))
        self.keyring = folder / "keyring.gpg"
        self._gpg("--passphrase", "", "--quick-generate-key", "Test Archive", "ed25519", "sign", "never")
        self._gpg("--output", self.keyring, "--export")

    def sign(self, text: str) -> bytes:
        """Return the clear-signed text."""
        path = self._home / "text"
        path.write_text(text)
        return self._gpg("--digest-algo", "SHA256", "--output", "-", "--clear-sign", path).encode()

    def close(self) -> None:
        run_tool(["gpgconf", "--homedir", self._home, "--kill", "all"], within=30)
        shutil.rmtree(self._home)

    def _gpg(self, *words: str | Path) -> str:
        return run_tool(["gpg", "--homedir", self._home, "--batch", "--yes", "--quiet", "--pinentry-mode", "loopback", *words], within=60)


class Repository:
    """Serves what `publish` made, each request noted in `requests` as (path, Range). `instead` answers a path in its own way."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._stanzas: list[str] = []
        self.files: dict[str, bytes] = {}
        self.instead: dict[str, Answer] = {}
        self.requests: list[tuple[str, str]] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}/debian"

    def add(self, name: str, version: str, content: bytes, **fields: str) -> str:
        """Add a package and return the path of its file. Further fields of its stanza are given by name."""
        path = f"pool/{name}_{version.replace(':', '%3a')}.deb"
        self.files[f"/debian/{path}"] = content
        digest = hashlib.sha256(content).hexdigest()
        known = {
            "Package": name,
            "Version": version,
            "Architecture": "amd64",
            "Filename": path,
            "Size": str(len(content)),
            "SHA256": digest,
        }
        self._stanzas.append("".join(f"{key}: {value}\n" for key, value in {**known, **fields}.items()))
        return f"/debian/{path}"

    def publish(
        self,
        *,
        suite: str = "bookworm",
        codename: str = "",
        date: datetime = DATE,
        valid_for: timedelta | None = None,
        by_hash: bool = False,
    ) -> None:
        """Sign what was added. The list lies under its name, or only under its digest."""
        place = f"/debian/dists/{suite}"
        plain = "\n".join(self._stanzas).encode()
        lists = {LIST: plain, f"{LIST}.xz": lzma.compress(plain)}
        fields = {"Origin": "Test", "Codename": codename or suite, "Date": _text(date)}
        if valid_for is not None:
            fields["Valid-Until"] = _text(date + valid_for)
        if by_hash:
            fields["Acquire-By-Hash"] = "yes"
        rows = [f" {hashlib.sha256(data).hexdigest()} {len(data):>8} {name}" for name, data in lists.items()]
        text = "".join(f"{key}: {value}\n" for key, value in fields.items()) + "\n".join(["SHA256:", *rows, ""])
        name = f"main/binary-amd64/by-hash/SHA256/{hashlib.sha256(lists[f'{LIST}.xz']).hexdigest()}" if by_hash else f"{LIST}.xz"
        self.files[f"{place}/{name}"] = lists[f"{LIST}.xz"]
        self.files[f"{place}/InRelease"] = self._key.sign(text)

    @property
    def list_path(self) -> str:
        return f"/debian/dists/bookworm/{LIST}.xz"

    def asked(self, path: str) -> list[str]:
        """The ranges with which a path was asked for."""
        return [ranges for asked, ranges in self.requests if asked == path]

    def _handler(repository: Self) -> type[BaseHTTPRequestHandler]:  # noqa: N805 (`self` is the handler's)
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                repository.requests.append((self.path, self.headers.get("Range", "")))
                self.close_connection = True
                answer = repository.instead.get(self.path) or _serve(repository.files)
                try:
                    answer(self)
                except ConnectionError:  # the client has heard enough
                    return

            def log_message(self, *_words: object) -> None:
                return

        return Handler

    @contextmanager
    def serving(self) -> Iterator[Self]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def _serve(files: Mapping[str, bytes]) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        path = request.path.removeprefix("http://mirror.invalid")
        if path not in files:
            send(request, 404, b"")
            return
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        send(request, 206 if start else 200, files[path][start:])

    return answer


def send(request: BaseHTTPRequestHandler, status: int, data: bytes, **headers: str) -> None:
    """Answer, by default with the length that `data` has."""
    request.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **{key.replace("_", "-"): value for key, value in headers.items()}}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(data)


def _text(date: datetime) -> str:
    return f"{date:%a, %d %b %Y %H:%M:%S} UTC"
