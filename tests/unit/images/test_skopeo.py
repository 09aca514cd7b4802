"""What skopeo is asked, and what its words mean."""

from pathlib import Path

import pytest

from utilityvm.images.names import parse
from utilityvm.images.skopeo import Access, failure
from utilityvm.kit.errors import Corrupt, Exhausted, HostError, NotFound

NAME = parse("quay.io/a/b:1")


def test_what_is_not_said_is_left_to_the_files_of_the_host() -> None:
    assert Access().inspect(NAME) == ["skopeo", "inspect", "--raw", "docker://quay.io/a/b:1"]
    words = Access().copy(NAME, Path("/layout"), Path("/blobs"), exact=True)
    assert words == [
        *("skopeo", "copy", "--remove-signatures", "--dest-shared-blob-dir", "/blobs", "--preserve-digests"),
        *("docker://quay.io/a/b:1", "oci:/layout:image"),
    ]


def test_all_that_is_said_is_handed_on() -> None:
    access = Access(authfile=Path("/auth"), policy=Path("/policy"), certificates=Path("/certs"), tls_verify=False)
    assert access.inspect(NAME, config=True) == [
        *("skopeo", "--policy", "/policy", "inspect", "--raw", "--config", "--authfile", "/auth", "--cert-dir", "/certs"),
        *("--tls-verify=false", "docker://quay.io/a/b:1"),
    ]
    words = access.copy(NAME, Path("/layout"), Path("/blobs"), exact=False)
    assert words[:10] == [
        *("skopeo", "--policy", "/policy", "copy", "--authfile", "/auth", "--src-cert-dir", "/certs", "--src-tls-verify=false"),
        "--remove-signatures",
    ]
    assert "--preserve-digests" not in words


def log(text: str) -> str:
    escaped = text.replace('"', '\\"')
    return f'Copying blob sha256:1\ntime="2026-01-01T00:00:00Z" level=fatal msg="{escaped}"\n'


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("writing blob: write /x/oci-put-blob1: no space left on device", Exhausted),
        ("unable to retrieve auth token: invalid username/password: unauthorized: authentication required", HostError),
        ("reading manifest 1 in docker.io/library/x: errors:\ndenied: requested access to the resource is denied", HostError),
        ("reading manifest 2 in quay.io/a/b: manifest unknown: manifest unknown", NotFound),
        ("Digest did not match, expected sha256:1, got sha256:2", Corrupt),
        ("Download config.json digest sha256:1 does not match expected sha256:2", Corrupt),
        ('pinging container registry x: Get "https://x/v2/": http: server gave HTTP response to HTTPS client', HostError),
        ('Get "https://x/v2/": x509: certificate signed by unknown authority', HostError),
        ("Error loading trust policy: open /etc/containers/policy.json: no such file or directory", HostError),
        ("Source image rejected: Running image docker://x is rejected by policy.", HostError),
        ("dial tcp: lookup x: no such host", HostError),
    ],
)
def test_words_that_are_known_have_a_hint_and_a_class(said: str, kind: type[Exception]) -> None:
    error = failure(log(said), 1, "pull x")
    assert type(error) is kind
    assert error.message == f"pull x: {said}".replace("\n", "\\n")
    assert error.hint


def test_words_that_are_not_known_are_told_as_they_are_but_steer_no_terminal() -> None:
    error = failure("some\x1b[2Jthing\n", 3, "pull x")
    assert (type(error), error.message, error.hint) == (HostError, r"pull x: some\x1b[2Jthing", "")
    assert failure("", 3, "pull x").message == "pull x: skopeo ended with 3 and said nothing"
