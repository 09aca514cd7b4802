"""What is shipped to trust by: the pinned packages, and the public keys of Debian."""

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from utilityvm.boot import pins, release
from utilityvm.boot.mirror import SUITES
from utilityvm.kit.proc import run_tool

KEYS = {
    "Debian Archive Automatic Signing Key (12/bookworm) <ftpmaster@debian.org>": "B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8",
    "Debian Security Archive Automatic Signing Key (12/bookworm) <ftpmaster@debian.org>": "05AB90340C0C5E797F44A8C8254CF3B5AEC0A8F0",
    "Debian Stable Release Key (12/bookworm) <debian-release@lists.debian.org>": "4D64FEC119C2029067D6E791F8D2585B8783D481",
}
"""The public keys, by the fingerprints that Debian publishes."""


def test_each_pin_is_one_version_with_its_digest() -> None:
    pinned = pins.load()
    assert pinned.suite == SUITES[0]
    assert pinned.date >= datetime(2026, 7, 11, tzinfo=UTC)
    names = [pin.name for pin in pinned.packages]
    assert names == sorted(set(names))
    assert {"linux-image-amd64", "linux-source", "linux-source-6.1", "busybox-static", "crun", "libc6"} <= set(names)
    assert all(re.fullmatch("[0-9a-f]{64}", pin.sha256) and pin.version for pin in pinned.packages)


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not there to look with: make setup")
def test_the_keyring_has_the_keys_that_sign_debian_12_and_no_other(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    argv = ["gpg", "--homedir", str(tmp_path), "--batch", "--with-colons", "--show-keys", str(release.KEYRING)]
    found, fingerprint = {}, ""
    for row in (line.split(":") for line in run_tool(argv, within=30).splitlines()):
        if row[0] == "pub":
            fingerprint = ""
        elif row[0] == "fpr":
            fingerprint = fingerprint or row[9]
        elif row[0] == "uid":
            found[row[9].replace("\\x3a", ":")] = fingerprint
    assert found == KEYS
