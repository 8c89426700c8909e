"""Certificates: what they say, when they are made anew, and that a client accepts them."""

import datetime
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from envoymesh.certificates import (
    LEAF_DAYS,
    front_secrets,
    is_current,
    make_authority,
    make_leaf,
    make_successor,
    names_of,
    renew,
    succeeds,
)
from envoymesh.model.mesh import HostName
from envoymesh.model.secrets import KeyPair
from envoymesh.problems import Failed
from tests.rendering import INVENTORY, mesh_of

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
EDGE = HostName("front-envoy")
NAMES = ("front-envoy", "localhost", "127.0.0.1")
MORE_NAMES = INVENTORY.replace("name: test\n", "name: test\nfront: {certificate_names: [www.example.org]}\n")


def certificate(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.chain)


def later(days: float) -> datetime.datetime:
    return NOW + datetime.timedelta(days=days)


def test_the_authority_signs_leaves_and_its_successor() -> None:
    ca = certificate(make_authority("test", NOW))
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 1)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert (ca.not_valid_after_utc - NOW).days in (3649, 3650)


def test_a_leaf_is_a_servers_and_names_what_it_is_asked_for() -> None:
    authority = make_authority("test", NOW)
    leaf = certificate(make_leaf(authority, NAMES, NOW))
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "front-envoy"
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["front-envoy", "localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    own = certificate(authority).extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert issuer.key_identifier == own.digest


def test_names_are_the_edges_own_and_the_inventorys_each_once() -> None:
    mesh = mesh_of(MORE_NAMES)
    expected = ("front-envoy", "localhost", "www.example.org", "127.0.0.1", "10.77.0.10")
    assert names_of(mesh.hosts[EDGE], mesh) == expected


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "10.77.0.10", "front-envoy"])
def test_a_client_that_knows_the_authority_accepts_it(name: str, tmp_path: Path) -> None:
    front_secrets(mesh_of(), tmp_path, NOW)
    assert handshake(tmp_path, name) == "TLSv1.3"


def test_a_client_refuses_another_name_and_another_authority(tmp_path: Path) -> None:
    front_secrets(mesh_of(), tmp_path, NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(tmp_path, "example.org")
    (tmp_path / "ca.pem").write_bytes(make_authority("test", NOW).chain)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, "localhost")


def handshake(folder: Path, name: str) -> str | None:
    """Return the version of TLS that client and server, both in memory, agree on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "front/front-envoy.pem", folder / "front/front-envoy-key.pem")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    trusting = ssl.create_default_context(cafile=folder / "ca.pem")
    client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(3):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client.version()


@pytest.mark.parametrize(
    ("days", "current"),
    [(0, True), (LEAF_DAYS * 2 // 3, True), (LEAF_DAYS * 2 // 3 + 1, False), (LEAF_DAYS + 1, False)],
)
def test_a_leaf_is_made_anew_in_the_last_third_of_its_time(days: int, current: bool) -> None:
    authority = make_authority("test", NOW)
    assert is_current(make_leaf(authority, NAMES, NOW), authority, NAMES, later(days)) is current


def test_a_leaf_is_made_anew_for_other_names_another_authority_or_damage() -> None:
    authority = make_authority("test", NOW)
    leaf, other = make_leaf(authority, NAMES, NOW), make_leaf(authority, NAMES, NOW)
    assert not is_current(leaf, authority, (*NAMES, "more"), NOW)
    assert not is_current(leaf, authority, NAMES[1:], NOW)
    assert not is_current(leaf, make_authority("test", NOW), NAMES, NOW)
    assert not is_current(replace(leaf, key=other.key), authority, NAMES, NOW)
    assert not is_current(replace(leaf, chain=b"damaged"), authority, NAMES, NOW)
    assert not is_current(replace(leaf, key=b"damaged"), authority, NAMES, NOW)


def test_what_is_kept_is_used_again_and_private(tmp_path: Path) -> None:
    first = front_secrets(mesh_of(), tmp_path / "state", NOW)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "state").rglob("*.pem")}
    assert front_secrets(mesh_of(), tmp_path / "state", later(100)) == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "state").rglob("*.pem")} == before
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    keys = [p for p in before if p.name.endswith("-key.pem")]
    assert len(keys) == 2
    assert {p.stat().st_mode & 0o777 for p in keys} == {0o600}


def test_a_leaf_that_no_longer_fits_is_replaced_and_the_authority_kept(tmp_path: Path) -> None:
    first = front_secrets(mesh_of(), tmp_path, NOW)
    authority = (tmp_path / "ca.pem").read_bytes()
    named = front_secrets(mesh_of(MORE_NAMES), tmp_path, NOW)
    renewed = front_secrets(mesh_of(MORE_NAMES), tmp_path, later(LEAF_DAYS))
    assert len({s.front[EDGE].chain for s in (first, named, renewed)}) == 3
    assert (tmp_path / "ca.pem").read_bytes() == authority


def test_many_at_once_make_one_authority(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: front_secrets(mesh_of(), tmp_path, NOW), range(8)))
    assert all(secrets == made[0] for secrets in made)


@pytest.mark.parametrize("file", ["ca.pem", "ca-key.pem"])
def test_a_damaged_authority_is_told_and_not_replaced(tmp_path: Path, file: str) -> None:
    front_secrets(mesh_of(), tmp_path, NOW)
    (tmp_path / file).write_text("damaged")
    with pytest.raises(Failed, match="certificate/authority"):
        front_secrets(mesh_of(), tmp_path, NOW)
    assert (tmp_path / file).read_text() == "damaged"


def test_an_authority_that_lost_its_key_is_told_and_not_replaced(tmp_path: Path) -> None:
    front_secrets(mesh_of(), tmp_path, NOW)
    (tmp_path / "ca-key.pem").unlink()
    kept = (tmp_path / "ca.pem").read_bytes()
    with pytest.raises(Failed, match="certificate/authority"):
        front_secrets(mesh_of(), tmp_path, NOW)
    assert (tmp_path / "ca.pem").read_bytes() == kept


def test_a_kill_between_key_and_certificate_is_made_good(tmp_path: Path) -> None:
    front_secrets(mesh_of(), tmp_path, NOW)
    (tmp_path / "ca.pem").unlink()
    (tmp_path / "front/front-envoy.pem").unlink()
    secrets = front_secrets(mesh_of(), tmp_path, NOW)
    assert handshake(tmp_path, "localhost") == "TLSv1.3"
    assert front_secrets(mesh_of(), tmp_path, NOW) == secrets


def test_clients_of_the_old_and_of_the_new_authority_accept_what_the_new_one_signs(tmp_path: Path) -> None:
    front_secrets(mesh_of(), tmp_path, NOW)
    old = (tmp_path / "ca.pem").read_bytes()
    renew(mesh_of(), tmp_path, NOW, authority=True)
    front_secrets(mesh_of(), tmp_path, NOW)
    new = (tmp_path / "ca.pem").read_bytes()
    assert certificate(KeyPair(old, b"")) != certificate(KeyPair(new, b""))
    for trusted in (new, old, certificate(KeyPair(new, b"")).public_bytes(Encoding.PEM)):
        (tmp_path / "ca.pem").write_bytes(trusted)
        assert handshake(tmp_path, "localhost") == "TLSv1.3"
    (tmp_path / "ca.pem").write_bytes(make_authority("test", NOW).chain)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, "localhost")


def test_an_authority_is_known_by_what_it_or_its_predecessor_is_trusted_for() -> None:
    old, other = make_authority("test", NOW), make_authority("test", NOW)
    new = make_successor(old, "test", NOW)
    assert succeeds(new.chain, new.chain)
    assert succeeds(new.chain, old.chain)
    assert not succeeds(old.chain, new.chain), "who has not heard of the new one must not go back to the old one"
    assert not succeeds(new.chain, other.chain)
    assert not succeeds(new.chain, b"damaged")


def test_what_led_to_an_authority_that_has_expired_is_left_out(tmp_path: Path) -> None:
    front_secrets(mesh_of(), tmp_path, NOW)
    renew(mesh_of(), tmp_path, later(3000), authority=True)
    for days, length in ((3000, 2), (3660, 1)):
        chain = front_secrets(mesh_of(), tmp_path, later(days)).front[EDGE].chain
        assert len(x509.load_pem_x509_certificates(chain)) == length


def test_an_authority_that_has_expired_can_be_replaced(tmp_path: Path) -> None:
    front_secrets(mesh_of(), tmp_path, NOW)
    with pytest.raises(Failed, match="certificate/authority"):
        front_secrets(mesh_of(), tmp_path, later(3660))
    renew(mesh_of(), tmp_path, later(3660), authority=True)
    front_secrets(mesh_of(), tmp_path, later(3660))


def test_renewal_makes_every_leaf_anew_and_keeps_the_authority(tmp_path: Path) -> None:
    first = front_secrets(mesh_of(), tmp_path, NOW)
    renew(mesh_of(), tmp_path, NOW, authority=False)
    second = front_secrets(mesh_of(), tmp_path, NOW)
    assert first.front[EDGE] != second.front[EDGE]
    assert first.authority == second.authority


@pytest.mark.parametrize("files", [("ca-next.pem",), ("ca-next.pem", "ca-key.pem")])
def test_a_kill_while_the_authority_is_replaced_leaves_the_old_or_the_new_one(
    tmp_path: Path, files: tuple[str, ...]
) -> None:
    front_secrets(mesh_of(), tmp_path, NOW)
    old = KeyPair((tmp_path / "ca.pem").read_bytes(), (tmp_path / "ca-key.pem").read_bytes())
    new = make_successor(old, "test", NOW)
    content = {"ca-next.pem": new.chain, "ca-key.pem": new.key}
    for name in files:
        (tmp_path / name).write_bytes(content[name])
    front_secrets(mesh_of(), tmp_path, NOW)
    assert (tmp_path / "ca.pem").read_bytes() == (new if "ca-key.pem" in files else old).chain
    assert not (tmp_path / "ca-next.pem").exists()
    assert handshake(tmp_path, "localhost") == "TLSv1.3"
