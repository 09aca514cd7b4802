"""skopeo, which speaks to registries for us: its command lines, and what its words of failure mean. Pure."""

import re
from pathlib import Path
from typing import Final

import msgspec

from utilityvm.images.blobs import FULL_HINT
from utilityvm.images.names import Reference
from utilityvm.kit.errors import Corrupt, Exhausted, HostError, NotFound, UtilityVMError
from utilityvm.kit.text import printable

PROGRAM: Final = "skopeo"
_LONGEST: Final = 2000


class Access(msgspec.Struct, frozen=True):
    """How a registry is spoken to. What is not said is what skopeo and podman do by themselves: files in ``/etc/containers`` and ``~``.

    `authfile` has user names and passwords, as ``podman login`` and ``docker login`` write it. `policy` says whose signatures are asked
    for. `certificates` is a folder of certificates for the registry. With `tls_verify` False a registry may speak HTTP, or show any
    certificate: then whoever is between may give another image, unless it is named by its digest.
    """

    authfile: Path | None = None
    policy: Path | None = None
    certificates: Path | None = None
    tls_verify: bool = True

    def inspect(self, name: Reference, *, config: bool = False) -> list[str]:
        """Return the command line that writes the manifest, or the configuration, of an image to its output, to the byte."""
        words = [*self._head(), "inspect", "--raw", *(["--config"] if config else []), *self._flags("")]
        return [*words, f"docker://{name}"]

    def copy(self, name: Reference, layout: Path, blobs: Path, *, exact: bool) -> list[str]:
        """Return the command line that brings the blobs of an image to `blobs`; `layout` is for what it writes besides.

        `exact` forbids to change the manifest, which docker's own kind has to be for a layout of OCI.
        """
        words = [*self._head(), "copy", *self._flags("src-"), "--remove-signatures", "--dest-shared-blob-dir", str(blobs)]
        return [*words, *(["--preserve-digests"] if exact else []), f"docker://{name}", f"oci:{layout}:image"]

    def _head(self) -> list[str]:
        return [PROGRAM, *(["--policy", str(self.policy)] if self.policy else [])]

    def _flags(self, side: str) -> list[str]:
        flags = ["--authfile", str(self.authfile)] if self.authfile else []
        flags += [f"--{side}cert-dir", str(self.certificates)] if self.certificates else []
        return [*flags, *([] if self.tls_verify else [f"--{side}tls-verify=false"])]


def failure(said: str, code: int, doing: str) -> UtilityVMError:
    """Return the error that skopeo's last words `said` are; `doing` begins its sentence."""
    why = _reason(said) or f"{PROGRAM} ended with {code} and said nothing"
    message = f"{doing}: {why}"
    for pattern, kind, hint in _MEANINGS:
        if re.search(pattern, why, re.IGNORECASE):
            return kind(message, hint=hint)
    return HostError(message)


def _reason(said: str) -> str:
    """Return what the last line that tells of an error says, without what a log has around it."""
    found = re.findall(r'level=(?:fatal|error) msg="((?:[^"\\]|\\.)*)"', said)
    text = re.sub(r"\\(.)", r"\1", found[-1]) if found else "\n".join(said.strip().splitlines()[-3:])
    return printable(text, _LONGEST)


_LOG_IN: Final = "log in: podman login or skopeo login, then name its file: --authfile FILE; or there is no such image"
_MEANINGS: Final[tuple[tuple[str, type[Corrupt | Exhausted | HostError | NotFound], str], ...]] = (
    (r"no space left on device|disk quota exceeded", Exhausted, FULL_HINT),
    (r"unauthorized|authentication required|access to the resource is denied|403 \(forbidden\)", HostError, _LOG_IN),
    (r"manifest unknown|name unknown|404 \(not found\)|repository name not known", NotFound, "look at the name and the tag"),
    (r"digest did not match|does not match expected|does not match provided manifest digest", Corrupt, "try again"),
    (r"server gave HTTP response to HTTPS client", HostError, "if it is meant to speak HTTP: --tls-verify=false"),
    (r"x509|certificate", HostError, "name the folder of its certificates: --cert-dir DIR"),
    (r"trust policy|policy\.json", HostError, "name a signature policy: --policy FILE, see containers-policy.json(5)"),
    (r"rejected by policy|signature", HostError, "the signature policy does not let it in"),
    (r"invalid character|unexpected end of JSON", Corrupt, "the registry's answer makes no sense"),
    (r"no such host|connection refused|network is unreachable|i/o timeout", HostError, "is the registry's address right, and is it up?"),
)
