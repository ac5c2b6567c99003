"""A certificate authority of some institution, for the tests of mTLS."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Authority:
    """Signs clients' certificates; ``path`` is its own, in PEM."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self.path = self._written(name, self._signed(self._name, self._key.public_key(), authority=True))

    def client(self, name: str) -> tuple[Path, Path]:
        """Return the certificate and the key of a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        place = self._folder / f"{name}.key"
        place.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return self._written(name, self._signed(_named(name), key.public_key(), authority=False)), place

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        lasts = now - datetime.timedelta(days=1), now + datetime.timedelta(days=1)
        builder = x509.CertificateBuilder(self._name, name, key, x509.random_serial_number(), *lasts)
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        usage = dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        signs = x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage)
        builder = builder.add_extension(signs, critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(own, critical=False).sign(self._key, hashes.SHA256())

    def _written(self, name: str, certificate: x509.Certificate) -> Path:
        place = self._folder / f"{name}.pem"
        place.write_bytes(certificate.public_bytes(Encoding.PEM))
        return place


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
