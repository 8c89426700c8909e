"""Certificates of hosts: an authority's word for whose key it is, read as OpenSSH reads them."""

import base64
from collections.abc import Collection
from fnmatch import fnmatchcase

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

SUFFIX = "-cert-v01@openssh.com"
"""What makes the name of a certificate algorithm of that of a host key algorithm."""


def refusal(kind: str, blob: bytes, name: str, authorities: Collection[bytes], now_s: float) -> str:
    """Return why a certificate does not prove that a key is the host's, in words; empty when it does.

    Args:
        kind: its type, such as `ssh-ed25519-cert-v01@openssh.com`.
        blob: the certificate.
        name: the host's, without a port.
        authorities: the public keys of those that are trusted for that host.
        now_s: the time, in seconds since 1970.
    """
    try:
        certificate = load_ssh_public_identity(kind.encode() + b" " + base64.b64encode(blob))
        if not isinstance(certificate, SSHCertificate):
            return "it is no certificate"
        if _authority(certificate) not in authorities:
            return "its authority is not known"
        certificate.verify_cert_signature()
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        return "it is damaged, or of a kind that cannot be read"
    return _misfit(certificate, name, now_s)


def authority_of(kind: str, blob: bytes) -> bytes:
    """Return the public key of who signed a certificate that `refusal` found nothing against."""
    certificate = load_ssh_public_identity(kind.encode() + b" " + base64.b64encode(blob))
    return _authority(certificate) if isinstance(certificate, SSHCertificate) else b""


def _authority(certificate: SSHCertificate) -> bytes:
    line = certificate.signature_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return base64.b64decode(line.split()[1])


def _misfit(certificate: SSHCertificate, name: str, now_s: float) -> str:
    """Return why a certificate with a good signature is none for this host and time."""
    names = [principal.decode(errors="replace") for principal in certificate.valid_principals]
    # `cryptography` does not say otherwise how it was signed, and accepts SHA-1.
    if bytes(certificate._inner_sig_type) == b"ssh-rsa":
        return "it is signed with SHA-1"
    if certificate.type is not SSHCertificateType.HOST:
        return "it is a user's"
    if certificate.critical_options:
        return "it has conditions that are not known"
    if not certificate.valid_after <= now_s < certificate.valid_before:
        return "it is not valid now"
    if not any(fnmatchcase(name.lower(), pattern.lower()) for pattern in names):
        return f"it is for {', '.join(names) or 'nobody'}"
    return ""
