"""The coordinator's own certificate authority: made at the first start, pinned by every join link."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from koinon.errors import FleetError
from koinon.fleet.wire.signatures import digest, write_secret

_AUTHORITY_YEARS = 20
_SERVER_DAYS = 825
_RENEW_DAYS = 60
_SLACK = datetime.timedelta(days=2)  # a participant's clock may be behind


@dataclass(frozen=True)
class ServerCertificate:
    """Files to serve TLS with, and the authority that participants pin; None for the user's own certificate."""

    certificate: Path
    key: Path
    authority: Path | None

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the authority's DER form, in hex."""
        return None if self.authority is None else fingerprint(self.authority.read_bytes())

    @property
    def shown(self) -> str:
        """SHA-256 of the certificate itself, in hex: of a chain its first."""
        return x509.load_pem_x509_certificates(self.certificate.read_bytes())[0].fingerprint(hashes.SHA256()).hex()


def own_certificate(folder: Path, hosts: Sequence[str]) -> ServerCertificate:
    """Return a certificate for ``hosts`` under the folder's own authority; both are made when missing.

    A certificate that does not cover ``hosts``, or ends within 60 days, is made anew; the authority stays. Raises
    FleetError for one that is lost in part or damaged: enrolled parties trust no other.
    """
    authority, authority_key = folder / "ca.pem", folder / "ca.key"
    certificate, key = folder / "server.pem", folder / "server.key"
    lost = [path for path in (authority, authority_key) if not path.exists()]
    if len(lost) == 1 and certificate.exists():  # before the first certificate it is a start that was cut short
        raise FleetError(
            f"{lost[0]} is missing, one half of the authority that parties trust. Restore it from a copy. Without one, remove the "
            "other half, too: then there is a new authority, and every party needs a new link and a new folder."
        )
    if lost:
        _make_authority(authority, authority_key)
    try:
        if not (certificate.exists() and key.exists() and _covers(certificate, authority, hosts)):
            _make_server(certificate, key, authority, authority_key, hosts)
    except ValueError as error:
        raise FleetError(
            f"{authority}, {authority_key} or {certificate} is damaged ({error!s:.80}). Restore the first two from a copy: parties trust "
            "them; the last is made anew if it is removed."
        ) from error
    return ServerCertificate(certificate, key, authority)


def fingerprint(pem: bytes) -> str:
    """Return the SHA-256 of a certificate's DER form. Raises ValueError for anything but the PEM of that one certificate.

    Of a text with a second certificate after it the first alone would be read here, and both be trusted by TLS.
    """
    text = pem.decode("ascii")
    der = ssl.PEM_cert_to_DER_cert(text)
    if ssl.DER_cert_to_PEM_cert(der).split() != text.split():
        raise ValueError("there is something else beside a certificate")
    return digest(der)


def _make_authority(path: Path, key_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "koinon coordinator")])
    builder = _builder(name, name, key.public_key(), datetime.timedelta(days=365 * _AUTHORITY_YEARS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True)
    write_secret(key_path, _pem(key))
    write_secret(path, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def _make_server(path: Path, key_path: Path, authority: Path, authority_key: Path, hosts: Sequence[str]) -> None:
    issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    signer = serialization.load_pem_private_key(authority_key.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey), "the authority's key is one of ours"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "koinon")])
    builder = _builder(name, issuer.subject, key.public_key(), datetime.timedelta(days=_SERVER_DAYS))
    builder = builder.add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.add_extension(issued_by, critical=False)
    write_secret(key_path, _pem(key))
    write_secret(path, builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lasts: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), now - _SLACK, now + lasts)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )  # fmt: skip


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _covers(path: Path, authority: Path, hosts: Sequence[str]) -> bool:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return (
        certificate.issuer == issuer.subject
        and left > datetime.timedelta(days=_RENEW_DAYS)
        and all(_general(host) in named for host in hosts)
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
