"""The mesh's certificate authority and the front's certificates.

Making and judging them is pure, the clock given; `front_secrets` alone reads and writes files.
"""

import datetime
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
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
"""A leaf is made anew once two thirds of them are over."""

COMMON_NAME = "front-envoy"


def make_authority(mesh_name: str, now: datetime.datetime) -> KeyPair:
    """Return a new certificate authority for a mesh: it may sign leaves, and its successor."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{mesh_name} mesh CA")])
    builder = _authority_builder(name, name, key.public_key(), (now, now + datetime.timedelta(CA_DAYS)), signs=1)
    return _pair(builder.sign(key, hashes.SHA256()), key)


def make_successor(authority: KeyPair, mesh_name: str, now: datetime.datetime) -> KeyPair:
    """Return a new authority with another key, its chain also as `authority` has signed it.

    Served behind a leaf, that second certificate leads clients who trust the old authority to one that they know; those
    who trust the new one need none. An authority that has expired leads nobody anywhere.
    """
    new, old = make_authority(mesh_name, now), _certificate(authority)
    if old.not_valid_after_utc < now:
        return new
    subject = _certificate(new)
    until = min(subject.not_valid_after_utc, old.not_valid_after_utc)
    key = _private_key(new).public_key()
    builder = _authority_builder(subject.subject, old.subject, key, (now, until), signs=0).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(_private_key(authority).public_key()), critical=False
    )
    cross = builder.sign(_private_key(authority), hashes.SHA256())
    return KeyPair(new.chain + _pem(cross), new.key)


def make_leaf(authority: KeyPair, names: tuple[str, ...], now: datetime.datetime) -> KeyPair:
    """Return a new server certificate for `names` (DNS names and IP addresses), signed by `authority`.

    Its chain goes on with what leads to the authority's predecessor, if there was one.
    """
    ca, ca_key = _certificate(authority), _private_key(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, COMMON_NAME)])
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    until = min(now + datetime.timedelta(LEAF_DAYS), ca.not_valid_after_utc)
    builder = (
        _builder(subject, ca.subject, key.public_key(), now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=False)
        .add_extension(issuer_key, critical=False)
    )
    leaf = _pair(builder.sign(ca_key, hashes.SHA256()), key)
    return KeyPair(leaf.chain + _beyond(authority), leaf.key)


def names_of(edge: Host, mesh: Mesh) -> tuple[str, ...]:
    """Return what the front of `edge` is called: its own names, the inventory's, and its addresses."""
    names = (COMMON_NAME, edge.name, "localhost", *mesh.certificate_names, "127.0.0.1", str(edge.address))
    return tuple(dict.fromkeys(names))


def is_current(pair: KeyPair, authority: KeyPair, names: tuple[str, ...], now: datetime.datetime) -> bool:
    """Return whether `pair` is for exactly `names`, led to by `authority`, and not in the last third of its time."""
    try:
        leaf, key = _certificate(pair), _private_key(pair)
        leaf.verify_directly_issued_by(_certificate(authority))
        names_there = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        led_to = _beyond(pair) == _beyond(authority)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    third = (leaf.not_valid_after_utc - leaf.not_valid_before_utc) / 3
    return (
        set(names_there) == {_general_name(n) for n in names}
        and leaf.public_key() == key.public_key()
        and led_to
        and leaf.not_valid_after_utc - now > third
    )


def succeeds(authority: bytes, other: bytes) -> bool:
    """Return whether clients who trust the authority `other` accept the leaves of `authority`; chains as PEM."""
    try:
        chain, trusted = x509.load_pem_x509_certificates(authority), x509.load_pem_x509_certificate(other)
        for certificate in chain:
            if certificate.public_key() == trusted.public_key():
                return True
            with suppress(ValueError, TypeError, InvalidSignature):
                certificate.verify_directly_issued_by(trusted)
                return True
    except ValueError:
        return False
    return False


def fingerprint(chain: bytes) -> str:
    """Return the SHA-256 of a PEM chain's first certificate, as `openssl x509 -fingerprint` shows it."""
    try:
        return x509.load_pem_x509_certificate(chain).fingerprint(hashes.SHA256()).hex(":").upper()
    except ValueError:
        return "no certificate"


def _about(pair: KeyPair) -> str:
    return f"certificate until {_certificate(pair).not_valid_after_utc:%Y-%m-%d} and its key"


def front_secrets(mesh: Mesh, folder: Path, now: datetime.datetime) -> Secrets:
    """Return every edge's certificate; read from `folder`, made and kept there when missing or no longer right.

    Two processes at once get the same authority and the same certificates.

    Raises:
        Failed: the authority's files are damaged or have expired.
    """
    with _opened(folder):
        authority = _authority(mesh, folder, now)
        leaves = {edge.name: _kept_leaf(edge, mesh, folder, authority, now) for edge in mesh.edges}
        return Secrets({edge: replace(pair, about=_about(pair)) for edge, pair in leaves.items()}, authority.chain)


def authority_of(mesh: Mesh, folder: Path, now: datetime.datetime) -> bytes:
    """Return the chain of the mesh's authority, which may have expired; made and kept in `folder` when missing.

    Raises:
        Failed: the authority's files are damaged.
    """
    with _opened(folder):
        return _authority(mesh, folder, now, may_be_over=True).chain


def renew(mesh: Mesh, folder: Path, now: datetime.datetime, *, authority: bool) -> None:
    """See to it that `front_secrets` makes every certificate anew; with `authority`, that is replaced first.

    Raises:
        Failed: the authority's files are damaged.
    """
    with _opened(folder):
        if authority:
            new = make_successor(_authority(mesh, folder, now, may_be_over=True), mesh.name, now)
            replace_file(folder / NEXT, new.chain, 0o644)
            _save(new, folder / "ca.pem", folder / "ca-key.pem")
            (folder / NEXT).unlink()
        for edge in mesh.edges:
            (folder / "front" / f"{edge.name}.pem").unlink(missing_ok=True)


NEXT = "ca-next.pem"
"""The authority's next certificate: a key that was replaced without its certificate is found to be this one's."""


def _authority(mesh: Mesh, folder: Path, now: datetime.datetime, *, may_be_over: bool = False) -> KeyPair:
    """Return the authority, with those certificates of its predecessor's that have not expired."""
    _completed(folder)
    pair = _load(folder / "ca.pem", folder / "ca-key.pem")
    if pair is None:
        if (folder / "ca.pem").exists():
            raise Failed(_authority_problem(folder))  # its key is lost, and clients trust it
        pair = make_authority(mesh.name, now)
        _save(pair, folder / "ca.pem", folder / "ca-key.pem")
    try:
        own, *others = x509.load_pem_x509_certificates(pair.chain)
        usable = own.public_key() == _private_key(pair).public_key()
    except (ValueError, TypeError):
        raise Failed(_authority_problem(folder)) from None
    if not usable or not (may_be_over or own.not_valid_after_utc >= now):
        raise Failed(_authority_problem(folder))
    return KeyPair(b"".join(map(_pem, (own, *(c for c in others if c.not_valid_after_utc >= now)))), pair.key)


def _completed(folder: Path) -> None:
    """Complete what a kill has cut off while the authority was being replaced."""
    following = _load(folder / NEXT, folder / "ca-key.pem")
    if following is None:
        return
    if _certificate(following).public_key() == _private_key(following).public_key():
        replace_file(folder / "ca.pem", following.chain, 0o644)
    (folder / NEXT).unlink()


def _authority_problem(folder: Path) -> Problem:
    return Problem(
        code="certificate/authority",
        what="the certificate authority cannot be used: expired, damaged, or without its key",
        at=f"{folder / 'ca.pem'}, {folder / 'ca-key.pem'}",
        now="nothing was changed; the front serves with the certificate that it has",
        hint="put both files back from a copy; has it expired: ./mesh renew --ca\n"
        "or move them away, and clients need the new ca.pem",
    )


def _kept_leaf(edge: Host, mesh: Mesh, folder: Path, authority: KeyPair, now: datetime.datetime) -> KeyPair:
    paths = folder / "front" / f"{edge.name}.pem", folder / "front" / f"{edge.name}-key.pem"
    pair = _load(*paths)
    names = names_of(edge, mesh)
    if pair is None or not is_current(pair, authority, names, now):
        pair = make_leaf(authority, names, now)
        _save(pair, *paths)
    return pair


Validity = tuple[datetime.datetime, datetime.datetime]
"""From when to when a certificate is valid."""


def _authority_builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, validity: Validity, *, signs: int
) -> x509.CertificateBuilder:
    """Return an authority's certificate, below which there may be so many others: `signs`."""
    return (
        _builder(subject, issuer, key, *validity)
        .add_extension(x509.BasicConstraints(ca=True, path_length=signs), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    """Return what every certificate begins with; valid from an hour ago, for hosts whose clock is behind."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(until)
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
        chain=_pem(certificate),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _beyond(pair: KeyPair) -> bytes:
    """Return all but the first certificate of a chain."""
    return b"".join(map(_pem, x509.load_pem_x509_certificates(pair.chain)[1:]))


def _certificate(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.chain)


def _private_key(pair: KeyPair) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pair.key, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("an elliptic curve key is expected")
    return key


@contextmanager
def _opened(folder: Path) -> Iterator[None]:
    """Have the folder, and nobody else work in it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "certificates.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "front").mkdir(mode=0o700, exist_ok=True)
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
