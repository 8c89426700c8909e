"""What a host must have: what it depends on, and what it must never contain."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envoymesh.model.mesh import Host, HostName, Service, ServiceName, SshSettings
from envoymesh.problems import Failed
from envoymesh.resources import Artifact, Directory, File, Resource, Unit, Validation
from roles import desired
from roles.render import parsed, render
from roles.service import Application, Code, application
from service.app import KEEPALIVE_S, SHUTDOWN_S
from tests.rendering import INVENTORY, desired_of, files_of, mesh_of, secrets_of, validation_of

EDGE, MEMBER = HostName("front-envoy"), HostName("service1-1")
FRONT, SIDECAR = "/etc/envoymesh/front", "/etc/envoymesh/sidecar"
ANOTHER_MEMBER = "  service1-2: {service: service1, address: 10.77.0.22}\n"


def document(resources: Sequence[Resource], path: str) -> dict[str, list[dict[str, object]]]:
    return parsed(files_of(resources)[path].content.decode())  # type: ignore[no-any-return]


def units(resources: Sequence[Resource]) -> dict[str, Unit]:
    return {r.name: r for r in resources if isinstance(r, Unit)}


def changed(before: Sequence[Resource], after: Sequence[Resource]) -> set[str]:
    """Return addresses of what lies on the host and differs."""
    old, new = ({r.address: r for r in rs if not isinstance(r, Unit | Validation)} for rs in (before, after))
    return {address for address in {*old, *new} if old.get(address) != new.get(address)}


def test_the_same_inventory_gives_the_same_and_addresses_are_unique() -> None:
    first, second = desired_of(), desired_of()
    assert first == second
    for resources in first.values():
        addresses = [r.address for r in resources]
        assert len(addresses) == len(set(addresses))


def test_every_path_has_its_folder_before_it() -> None:
    for resources in desired_of().values():
        folders = {"/etc/systemd/system"}
        for resource in resources:
            if isinstance(resource, Directory):
                folders.add(resource.path)
            elif isinstance(resource, File | Artifact):
                assert resource.path.rpartition("/")[0] in folders, resource.address


def test_another_member_changes_one_file_of_the_front_and_nothing_else_anywhere() -> None:
    before, after = desired_of(), desired_of(INVENTORY + ANOTHER_MEMBER)
    assert changed(before[EDGE], after[EDGE]) == {f"file:{FRONT}/eds/service1.yaml"}
    assert after[MEMBER] == before[MEMBER]
    (old,), (new,) = units(before[EDGE]).values(), units(after[EDGE]).values()
    assert new.stamp == old.stamp, "the front must not restart for a member"
    assert new.probe != old.probe, "it must be seen to load it"


def test_another_service_changes_no_listener_and_restarts_nothing() -> None:
    text = INVENTORY.replace("services:\n", "services:\n  shop: {path: /shop}\n")
    before, after = desired_of(), desired_of(text)
    names = {f"file:{FRONT}/{name}.yaml" for name in ("eds/shop", "cds", "rds")}
    assert changed(before[EDGE], after[EDGE]) == names
    assert units(before[EDGE])["envoymesh-front.service"].stamp == units(after[EDGE])["envoymesh-front.service"].stamp


def test_what_a_probe_waits_for_is_what_the_files_carry() -> None:
    for resources in desired_of().values():
        texts = [f.content.decode() for f in files_of(resources).values()]
        carried = {match[1] for text in texts if (match := re.match(r'version_info: "(\w{16})"\n', text))}
        waited = [v for unit in units(resources).values() for v in unit.probe.stats.values()]
        assert sorted(waited) == sorted(carried)


def test_files_are_replaced_after_what_they_refer_to() -> None:
    order = [path.removeprefix(f"{FRONT}/") for path in files_of(desired_of()[EDGE]) if path.startswith(FRONT)]
    assert order[:6] == ["eds/service1.yaml", "eds/service2.yaml", "sds.yaml", "cds.yaml", "rds.yaml", "lds.yaml"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: test\n", "name: test\nmachines: {memory_mib: 1024}\n"),
        ("name: test\n", "name: test\nenvoy: {version: 1.39.3}\n"),
    ],
    ids=["bootstrap", "binary"],
)
def test_what_is_read_only_at_the_start_restarts_envoy(old: str, new: str) -> None:
    before, after = desired_of(), desired_of(INVENTORY.replace(old, new))
    for host, name in ((EDGE, "envoymesh-front.service"), (MEMBER, "envoymesh-sidecar.service")):
        stamps = [units(d[host])[name].stamp for d in (before, after)]
        assert stamps[0] != stamps[1]
        text = files_of(after[host])[f"/etc/systemd/system/{name}"].content.decode()
        assert f"Environment=ENVOYMESH_STAMP={stamps[1]}\n" in text


def test_a_version_without_a_pin_is_refused() -> None:
    with pytest.raises(Failed) as failed:
        desired_of(INVENTORY.replace("name: test\n", "name: test\nenvoy: {version: 1.40.9}\n"))
    (problem,) = failed.value.problems
    assert problem.code == "envoy/unknown-version"
    assert problem.hint == "did you mean `1.40.0`?"


def test_the_key_is_in_one_file_that_only_the_front_reads_and_in_no_representation() -> None:
    resources = desired_of()[EDGE]
    secret = [f for f in files_of(resources).values() if b"PRIVATE KEY" in f.content]
    assert [(f.path, f.owner, f.group, f.mode, f.secret) for f in secret] == [
        (f"{FRONT}/sds.yaml", "root", "envoymesh-front", 0o640, True)
    ]
    assert "PRIVATE KEY" not in repr(resources)
    assert "PRIVATE KEY" not in repr(secrets_of(mesh_of()))


def test_every_edge_has_a_certificate_of_its_own() -> None:
    both = desired_of(INVENTORY + "  edge2: {role: edge, address: 10.77.0.11}\n")
    contents = {files_of(both[HostName(name)])[f"{FRONT}/sds.yaml"].content for name in ("front-envoy", "edge2")}
    assert len(contents) == 2


@pytest.mark.parametrize(("ports", "capability"), [("80, https_port: 443", "CAP_NET_BIND_SERVICE"), ("8080", "")])
def test_only_a_low_port_gives_a_capability(ports: str, capability: str) -> None:
    resources = desired_of(INVENTORY.replace("name: test\n", f"name: test\nfront: {{http_port: {ports}}}\n"))[EDGE]
    text = files_of(resources)["/etc/systemd/system/envoymesh-front.service"].content.decode()
    assert f"CapabilityBoundingSet={capability}\n" in text
    assert f"AmbientCapabilities={capability}\n" in text


def test_the_deeper_path_is_tried_first() -> None:
    text = INVENTORY.replace("services:\n", "services:\n  shop: {path: /shop}\n  cart: {path: /shop/cart}\n")
    (table,) = document(desired_of(text)[EDGE], f"{FRONT}/rds.yaml")["resources"]
    routes = table["virtual_hosts"][0]["routes"]  # type: ignore[index]
    paths = [route["match"]["path_separated_prefix"] for route in routes]
    assert paths.index("/shop/cart") < paths.index("/shop")


def test_validation_guards_every_file_that_envoy_reads_and_the_unit_that_names_it() -> None:
    for host, folder in ((EDGE, FRONT), (MEMBER, SIDECAR)):
        resources = desired_of()[host]
        read = {f.address for f in files_of(resources).values() if f.path.startswith(folder)}
        unit = f"file:/etc/systemd/system/{validation_of(resources).user}.service"
        assert validation_of(resources).guards == read | {unit}


def test_a_sidecar_closes_idle_connections_before_the_application_does() -> None:
    (cluster,) = document(desired_of()[MEMBER], f"{SIDECAR}/cds.yaml")["resources"]
    (options,) = cluster["typed_extension_protocol_options"].values()  # type: ignore[attr-defined]
    idle = options["common_http_protocol_options"]["idle_timeout"]
    assert float(idle.removesuffix("s")) < KEEPALIVE_S


def test_systemd_is_more_patient_than_a_stopping_application() -> None:
    (text,) = (f.content.decode() for p, f in files_of(desired_of()[MEMBER]).items() if "/envoymesh-app-" in p)
    assert int(re.findall(r"TimeoutStopSec=(\d+)s", text)[0]) > SHUTDOWN_S


def test_application_and_admin_are_on_loopback_and_the_sidecar_on_the_mesh_address() -> None:
    resources = desired_of()[MEMBER]
    listener = document(resources, f"{SIDECAR}/lds.yaml")["resources"][0]
    assert listener["address"] == {"socket_address": {"address": "10.77.0.21", "port_value": 8000}}
    for host, folder in ((EDGE, FRONT), (MEMBER, SIDECAR)):
        admin = parsed(files_of(desired_of()[host])[f"{folder}/bootstrap.yaml"].content.decode())["admin"]
        assert admin["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 8001}
    (probe,) = (u.probe for name, u in units(resources).items() if name.startswith("envoymesh-app-"))
    assert (probe.port, probe.path) == (8080, "/healthz")
    assert ip_address(probe.address).is_loopback
    (member,) = document(resources, f"{SIDECAR}/eds/local_service.yaml")["resources"]
    (endpoint,) = member["endpoints"][0]["lb_endpoints"]  # type: ignore[index]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": probe.address, "port_value": 8080}


def release_of(requirements: str = "", address: str = "10.77.0.21", **code: str) -> Application:
    """Return a release on a host."""
    files = {f"{name}.py": text.encode() for name, text in code.items()}
    host = Host(MEMBER, IPv4Address(address), ServiceName("service1"), SshSettings())
    service = Service(ServiceName("service1"), "/service/1")
    return application(host, service, Code({**files, "requirements.txt": requirements.encode()}))


def test_releases_never_share_a_unit_or_an_address_and_one_is_always_the_same() -> None:
    same = release_of(__main__="1")
    others = [
        release_of(__main__="2"),
        release_of("aiohttp", __main__="1"),
        release_of(address="10.7.0.1", __main__="1"),
    ]
    assert (same.unit, same.listen) == (release_of(__main__="1").unit, release_of(__main__="1").listen)
    assert len({a.unit for a in (same, *others)}) == len({a.listen for a in (same, *others)}) == 4


@given(st.binary(min_size=6, max_size=6))
def test_a_release_listens_on_an_address_of_the_loopback_that_nobody_else_uses(digest: bytes) -> None:
    address = IPv4Address(Application(Code({"requirements.txt": b""}), {}, digest.hex()).listen)
    assert address in IPv4Network("127.0.0.0/8")
    assert address not in IPv4Network("127.0.0.0/16")
    assert address != IPv4Address("127.255.255.255")


def test_another_release_is_another_unit_and_another_endpoint_and_nothing_else() -> None:
    mesh = mesh_of()
    hosts = mesh.hosts_of(ServiceName("service1"))
    files: list[Mapping[str, bytes]] = [{"__main__.py": text, "requirements.txt": b""} for text in (b"1", b"2")]
    old, new = (desired(mesh, secrets_of(mesh), {ServiceName("service1"): f}, hosts)[MEMBER] for f in files)
    differs = {re.sub("[0-9a-f]{12,}", "ID", address) for address in changed(old, new)}
    assert differs == {
        "artifact:/opt/envoymesh/app/ID",
        "file:/etc/systemd/system/envoymesh-app-ID.service",
        f"file:{SIDECAR}/eds/local_service.yaml",
    }


def test_two_envoys_never_share_memory() -> None:
    resources = desired_of()
    texts = [
        files_of(resources[host])[f"/etc/systemd/system/envoymesh-{name}.service"].content.decode()
        for host, name in ((EDGE, "front"), (MEMBER, "sidecar"))
    ]
    assert len({re.findall(r"--base-id (\d+)", text)[0] for text in texts}) == 2


@given(st.text(min_size=1))
def test_a_value_can_never_become_structure(value: str) -> None:
    service = Service(ServiceName(value), value)
    (table,) = parsed(render("front/rds.yaml.j2", services=[service]))["resources"]
    for route in table["virtual_hosts"][0]["routes"]:
        assert route["match"]["path_separated_prefix"] == value
        assert route["route"]["cluster"] == value


def test_a_service_without_hosts_has_no_endpoints() -> None:
    mesh = mesh_of()
    hosts = {name: host for name, host in mesh.hosts.items() if host.service != "service2"}
    smaller = replace(mesh, hosts=hosts)
    resources = desired(smaller, secrets_of(mesh), {}, smaller.edges)[EDGE]
    (members,) = document(resources, f"{FRONT}/eds/service2.yaml")["resources"]
    assert members["endpoints"] == [{"lb_endpoints": []}]
