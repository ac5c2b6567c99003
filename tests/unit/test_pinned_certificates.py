"""A pin is of one certificate: what stands beside it in the same text is trusted by nobody."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest

from koinon.fleet.wire.certificates import ServerCertificate, fingerprint, own_certificate

MOST = 40


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[ServerCertificate, bytes]:
    """A coordinator's authority whose base64 ends in padding, where a lenient decoder stops; and another's."""
    other = own_certificate(tmp_path_factory.mktemp("other"), ["localhost"]).authority
    assert other is not None
    for own in _made(tmp_path_factory):
        if own.authority is not None and b"=\n-----END" in own.authority.read_bytes():
            return own, other.read_bytes()
    raise AssertionError(f"none of {MOST} certificates has a padding")


def _made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerCertificate]:
    for _ in range(MOST):
        yield own_certificate(tmp_path_factory.mktemp("own"), ["localhost"])


def test_a_second_authority_behind_the_pinned_one_is_not_let_in(authorities: tuple[ServerCertificate, bytes]) -> None:
    own, other = authorities
    assert own.authority is not None
    both = own.authority.read_bytes() + other
    assert len(ssl.create_default_context(cadata=both.decode()).get_ca_certs()) == 2, "TLS would trust both"
    assert fingerprint(own.authority.read_bytes()) == own.fingerprint
    assert fingerprint(own.authority.read_bytes().replace(b"\n", b"\r\n")) == own.fingerprint
    for text in (both, other + own.authority.read_bytes(), b"\n".join((b"a word", own.authority.read_bytes()))):
        with pytest.raises(ValueError):
            fingerprint(text)
