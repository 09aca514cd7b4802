"""What Debian signs: the file `InRelease` of a suite, which has the digests of the suite's lists. Its signature, and what it says.

`KEYRING` has the public keys that sign Debian 12: the archive's, the security archive's and the release team's. They are copied from
Debian's package debian-archive-keyring, whose licence says that "the keys in the keyrings don't fall under any copyright".
"""

import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import msgspec

from utilityvm.kit.errors import Corrupt, HostError, NotFound
from utilityvm.kit.proc import run_tool

KEYRING = Path(__file__).with_name("debian-archive-bookworm.gpg")

_VERIFY_SECONDS = 30
_BEGIN, _SIGNATURE, _END = "-----BEGIN PGP SIGNED MESSAGE-----", "-----BEGIN PGP SIGNATURE-----", "-----END PGP SIGNATURE-----"


class Listed(msgspec.Struct, frozen=True):
    """A file of the suite: its size in bytes and its SHA-256."""

    size: int
    sha256: str


class Release(msgspec.Struct, frozen=True):
    """What a suite's `InRelease` says: until when it may be believed (None: for ever), and the suite's files by their path."""

    codename: str
    date: datetime
    valid_until: datetime | None
    by_hash: bool
    files: Mapping[str, Listed]


def signed_text(data: bytes, keyring: Path, what: str) -> str:
    """Return the text in the clear-signed file `data`, after one of the keys in `keyring` was shown to have signed it.

    Raises:
        Corrupt: it has no good signature by one of the keys, or is not in the form of a signed text.
        NotFound: this host has neither gpgv nor sqv.
    """
    text, signature = split(data, what)
    with tempfile.TemporaryDirectory(prefix="uvm-release-") as temporary:
        for name, content in (("text", text), ("signature", signature)):
            Path(temporary, name).write_text(content)
        if not _verified(Path(temporary, "signature"), Path(temporary, "text"), keyring.resolve()):
            raise Corrupt(f"{what}: has no good signature by a key of {keyring.name}", hint="is it a mirror of Debian 12?")
    return text


def split(data: bytes, what: str) -> tuple[str, str]:
    """Split a clear-signed file (RFC 9580, section 7) into the text that was signed, and the signature. Nothing else may be in it.

    Raises:
        Corrupt: it is something else.
    """
    try:
        lines = [line.rstrip(" \t\r") for line in data.decode().rstrip("\n").split("\n")]
        blank, behind = lines.index(""), lines.index(_SIGNATURE)
        headers, text, signature = lines[1:blank], lines[blank + 1 : behind], lines[behind:]
    except ValueError as error:  # also what UnicodeDecodeError is
        raise Corrupt(f"{what}: is not a signed text") from error
    dashed = any(line.startswith("-") and not line.startswith("- ") for line in text)
    if (
        lines[0] != _BEGIN
        or not all(line.startswith("Hash: ") for line in headers)
        or dashed
        or signature.index(_END) != len(signature) - 1
    ):
        raise Corrupt(f"{what}: is not a signed text")
    return "\n".join(line.removeprefix("- ") for line in text), "\n".join(signature) + "\n"


def _verified(signature: Path, text: Path, keyring: Path) -> bool:
    if shutil.which("gpgv"):
        # It ends with 2 when one signature is by a key that is not in the keyring, whatever the others are. GOODSIG is said of a good
        # signature by a key that is, and has neither expired nor been revoked.
        argv: list[str | Path] = ["gpgv", "--status-fd", "1", "--weak-digest", "SHA1", "--keyring", keyring, signature, text]
        said = run_tool(argv, within=_VERIFY_SECONDS, codes=(0, 1, 2))
        return any(line.startswith("[GNUPG:] GOODSIG ") for line in said.splitlines())
    if shutil.which("sqv") is None:
        raise NotFound("gpgv: command not found, and Debian's signatures are checked by it", hint="install the package gpgv, or sqv")
    try:
        return bool(run_tool(["sqv", "--keyring", keyring, signature, text], within=_VERIFY_SECONDS).strip())
    except HostError:
        return False


def parse(text: str, what: str) -> Release:
    """Read the signed text of an `InRelease`.

    Raises:
        Corrupt: it lacks something, or is not in the form.
    """
    fields: dict[str, str] = {}
    files: dict[str, Listed] = {}
    section = ""
    try:
        for line in text.splitlines():
            if not line.startswith(" "):
                section, _, value = line.partition(":")
                fields[section] = value.strip()
            elif section == "SHA256":
                digest, size, name = line.split()
                files[name] = Listed(int(size), digest)
        until = fields.get("Valid-Until")
        return Release(
            fields["Codename"], _date(fields["Date"]), _date(until) if until else None, fields.get("Acquire-By-Hash") == "yes", files
        )
    except (KeyError, ValueError) as error:
        raise Corrupt(f"{what}: cannot be understood: {error}") from error


def check(release: Release, codename: str, now: float, newest: datetime | None, what: str) -> None:
    """Check that a release is the suite `codename`, not out of date at `now` (seconds since 1970), and not older than `newest`.

    Raises:
        Corrupt: it is something else.
    """
    if release.codename != codename:
        raise Corrupt(f"{what}: is of {release.codename}, not of {codename}")
    if release.valid_until and release.valid_until.timestamp() < now:
        raise Corrupt(
            f"{what}: was valid until {release.valid_until:%Y-%m-%d %H:%M} UTC", hint="name another mirror; or is this host's clock wrong?"
        )
    if newest and release.date < newest:
        raise Corrupt(
            f"{what}: is of {release.date:%Y-%m-%d %H:%M}, and one of {newest:%Y-%m-%d %H:%M} is known",
            hint="name a mirror that is up to date",
        )


def _date(text: str) -> datetime:
    return parsedate_to_datetime(text).astimezone(UTC)
