"""The mesh's certificate authority and the front's certificates.

Making and judging them is pure, the clock given; `front_secrets` alone reads and writes files.
"""

import datetime
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from envoymesh.files import replace_file
from envoymesh.model.mesh import Host, Mesh
from envoymesh.model.secrets import KeyPair, Secrets
from envoymesh.problems import Failed, Problem

CA_DAYS = 3650
LEAF_DAYS = 365
RENEW_DAYS = 30
"""A certificate with fewer days left is made anew."""

COMMON_NAME = "front-envoy"


def make_authority(mesh_name: str, now: datetime.datetime) -> KeyPair:
    """Return a new certificate authority for a mesh: it may sign leaves, not other authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{mesh_name} mesh CA")])
    builder = (
        _builder(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def make_leaf(authority: KeyPair, names: tuple[str, ...], now: datetime.datetime) -> KeyPair:
    """Return a new server certificate for `names` (DNS names and IP addresses), signed by `authority`."""
    ca, ca_key = _certificate(authority), _private_key(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, COMMON_NAME)])
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    builder = (
        _builder(subject, ca.subject, key.public_key(), now, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=False)
        .add_extension(issuer_key, critical=False)
    )
    return _pair(builder.sign(ca_key, hashes.SHA256()), key)


def names_of(edge: Host, mesh: Mesh) -> tuple[str, ...]:
    """Return what the front of `edge` is called: its own names, the inventory's, and its addresses."""
    names = (COMMON_NAME, edge.name, "localhost", *mesh.certificate_names, "127.0.0.1", str(edge.address))
    return tuple(dict.fromkeys(names))


def is_current(pair: KeyPair, authority: KeyPair, names: tuple[str, ...], now: datetime.datetime) -> bool:
    """Return whether `pair` is for exactly `names`, signed by `authority`, and has `RENEW_DAYS` left."""
    try:
        leaf, key = _certificate(pair), _private_key(pair)
        leaf.verify_directly_issued_by(_certificate(authority))
        names_there = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return (
        set(names_there) == {_general_name(n) for n in names}
        and leaf.public_key() == key.public_key()
        and days_left(pair, now) >= RENEW_DAYS
    )


def days_left(pair: KeyPair, now: datetime.datetime) -> int:
    """Return the whole days until the certificate expires; negative when it has."""
    return (_certificate(pair).not_valid_after_utc - now).days


def front_secrets(mesh: Mesh, folder: Path, now: datetime.datetime) -> Secrets:
    """Return every edge's certificate; read from `folder`, made and kept there when missing or no longer right.

    Two processes at once get the same authority and the same certificates.

    Raises:
        Failed: the authority's files are damaged or have expired.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder / "certificates.lock"):
        authority = _authority(mesh, folder, now)
        (folder / "front").mkdir(mode=0o700, exist_ok=True)
        return Secrets({edge.name: _kept_leaf(edge, mesh, folder, authority, now) for edge in mesh.edges})


def _authority(mesh: Mesh, folder: Path, now: datetime.datetime) -> KeyPair:
    pair = _load(folder / "ca.pem", folder / "ca-key.pem")
    if pair is None:
        if (folder / "ca.pem").exists():
            raise Failed(_authority_problem(folder))  # its key is lost, and clients trust it
        pair = make_authority(mesh.name, now)
        _save(pair, folder / "ca.pem", folder / "ca-key.pem")
    try:
        usable = _certificate(pair).public_key() == _private_key(pair).public_key() and days_left(pair, now) >= 0
    except (ValueError, TypeError):
        usable = False
    if not usable:
        raise Failed(_authority_problem(folder))
    return pair


def _authority_problem(folder: Path) -> Problem:
    return Problem(
        code="certificate/authority",
        what="the certificate authority cannot be used: expired, damaged, or without its key",
        at=f"{folder / 'ca.pem'}, {folder / 'ca-key.pem'}",
        now="nothing was changed; the front serves with the certificate that it has",
        hint="put both files back from a copy; or move them away, and clients need the new ca.pem",
    )


def _kept_leaf(edge: Host, mesh: Mesh, folder: Path, authority: KeyPair, now: datetime.datetime) -> KeyPair:
    paths = folder / "front" / f"{edge.name}.pem", folder / "front" / f"{edge.name}-key.pem"
    pair = _load(*paths)
    names = names_of(edge, mesh)
    if pair is None or not is_current(pair, authority, names, now):
        pair = make_leaf(authority, names, now)
        _save(pair, *paths)
    return pair


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    """Return what every certificate begins with; valid from an hour ago, for hosts whose clock is behind."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    return KeyPair(
        chain=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def _certificate(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.chain)


def _private_key(pair: KeyPair) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pair.key, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("an elliptic curve key is expected")
    return key


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _load(certificate: Path, key: Path) -> KeyPair | None:
    """Return the pair in two files, None when either is missing."""
    try:
        return KeyPair(certificate.read_bytes(), key.read_bytes())
    except FileNotFoundError:
        return None


def _save(pair: KeyPair, certificate: Path, key: Path) -> None:
    """Keep a pair, the key first: a certificate that is there has its key."""
    replace_file(key, pair.key, 0o600)
    replace_file(certificate, pair.chain, 0o644)
