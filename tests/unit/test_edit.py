"""Edits of the inventory touch the lines of one host and no other."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from envoymesh.model.edit import new_addresses, new_names, with_host, with_release, without_host
from envoymesh.model.inventory import parse
from envoymesh.model.mesh import HostName, ServiceName
from envoymesh.problems import Failed

SHIPPED = (Path(__file__).parents[2] / "inventory.yaml").read_text()
BLOCK = """\
name: shop   # ours
services: {cart: {path: /cart}}
hosts:
    # the way in
    edge:
        role: edge      # one for now
        address: 10.77.0.10

    cart-1:
        service: cart
        address: 10.77.0.20
        ssh:
            user: deploy   # not root
    # nothing below this line is ours
machines: {memory_mib: 256}
"""


LAST = BLOCK[: BLOCK.index("    # nothing below")]
"""The service's last host ends the text."""


@pytest.mark.parametrize("ending", ["\n", "", "\n\n"], ids=["with a last newline", "without one", "with an empty line"])
@pytest.mark.parametrize(("text", "service"), [(SHIPPED, "service1"), (BLOCK, "cart"), (LAST, "cart")])
def test_a_host_added_and_removed_leaves_the_text_as_it_was(text: str, service: str, ending: str) -> None:
    name, text = HostName(f"{service}-2"), text.rstrip("\n") + ending
    added = with_host(text, name, ServiceName(service), IPv4Address("10.77.0.99"))
    mesh = parse(added, "inventory.yaml", seed="")
    assert mesh.hosts[name].address == IPv4Address("10.77.0.99")
    assert mesh.hosts[name].service == service
    assert without_host(added, name) == text


@pytest.mark.parametrize("text", [SHIPPED, BLOCK, LAST])
def test_a_new_host_has_the_line_ends_of_the_text(text: str) -> None:
    service = "service1" if text is SHIPPED else "cart"
    name, text = HostName(f"{service}-2"), text.replace("\n", "\r\n")
    added = with_host(text, name, ServiceName(service), IPv4Address("10.77.0.99"))
    assert added.count("\n") == added.count("\r\n") > text.count("\n")
    assert without_host(added, name) == text


def test_a_new_host_follows_its_siblings_and_has_their_layout() -> None:
    lines = with_host(SHIPPED, HostName("service1-2"), ServiceName("service1"), IPv4Address("10.77.0.22")).splitlines()
    after = next(i for i, line in enumerate(lines) if line.startswith("  service1-1:"))
    assert lines[after + 1] == "  service1-2: {service: service1, address: 10.77.0.22}"


def test_a_removed_host_takes_its_own_comments_and_no_others() -> None:
    text = without_host(BLOCK, HostName("cart-1"))
    assert "not root" not in text
    assert "# nothing below this line is ours" in text
    assert "# the way in" in text


def test_hosts_on_one_line_are_refused() -> None:
    text = "name: a\nservices: {s: {path: /s}}\nhosts: {e: {role: edge, address: 10.77.0.10}}\n"
    with pytest.raises(Failed) as failed:
        with_host(text, HostName("s-1"), ServiceName("s"), IPv4Address("10.77.0.11"))
    assert failed.value.problems[0].code == "inventory/layout"


FLOW = "services: {cart: {path: /cart}}"
BRACES = BLOCK.replace(FLOW, "services:\n  cart: {path: /cart} # ours\n  shop: {path: /shop}")
LINES = BLOCK.replace(FLOW, "services:\n    # the cart\n    cart:\n        path: /cart # ours\n    shop: {path: /shop}")


@pytest.mark.parametrize("crlf", [False, True])
@pytest.mark.parametrize("text", [BLOCK, BRACES, LINES])
def test_a_release_entered_and_taken_out_leaves_the_text_as_it_was(text: str, crlf: bool) -> None:
    text, service = text.replace("\n", "\r\n") if crlf else text, ServiceName("cart")
    entered = with_release(text, service, "1e5")
    assert parse(entered, "inventory.yaml", seed="").services[service].release == "1e5"
    assert parse(with_release(entered, service, "two"), "inventory.yaml", seed="").services[service].release == "two"
    assert with_release(with_release(entered, service, "two"), service, "1e5") == entered
    assert with_release(entered, service, None) == text
    assert with_release(text, service, None) == text
    assert {line for line in text.splitlines() if "{path: /cart}" not in line} <= set(entered.splitlines())


@pytest.mark.parametrize("entry", ["{release: one, path: /cart}", "\n    release: one\n    path: /cart"])
def test_a_release_may_stand_before_the_path(entry: str) -> None:
    text = f"services:\n  cart: {entry}\n"
    assert "release" not in with_release(text, ServiceName("cart"), None)
    assert 'release: "two"' in with_release(text, ServiceName("cart"), "two")
    assert "path: /cart" in with_release(text, ServiceName("cart"), None)


def test_names_and_addresses_fill_gaps_and_never_collide() -> None:
    mesh = parse(SHIPPED, "inventory.yaml", seed="")
    service = ServiceName("service1")
    assert new_names(mesh, service, 2) == ["service1-2", "service1-3"]
    assert [str(a) for a in new_addresses(mesh, service, 11)] == [
        *(f"10.77.0.{n}" for n in range(22, 31)),
        "10.77.0.32",
        "10.77.0.33",
    ]
    with pytest.raises(Failed) as failed:
        new_addresses(mesh, service, 300)
    assert failed.value.problems[0].code == "inventory/network-full"
