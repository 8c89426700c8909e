"""What of the transport is pure: quoting, output, known_hosts lines, command lines."""

import base64
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envoymesh.machines.existing import Existing
from envoymesh.problems import Failed
from envoymesh.run.workspace import open_workspace
from envoymesh.transport import remote
from envoymesh.transport.host_keys import fingerprint, known_keys
from envoymesh.transport.login import Login
from envoymesh.transport.openssh import resolve, ssh_command
from tests.rendering import INVENTORY, mesh_of

LOGIN = Login("web", "192.0.2.7", Path("/mesh/known_hosts"), 2222, "deploy", Path("/mesh/key"), "none")
BLOB = base64.b64encode(b"key").decode()


# Scripts


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_quoting_is_exact(script: str) -> None:
    *runner, started = shlex.split(remote.command(script, sudo=False))
    assert runner == ["bash", "--norc", "-c", 'bash --norc -c "$1"; exit $?', "bash"]
    assert started == f"printf '%s\\n' {remote.STARTED}\n{script}"


def test_sudo_never_asks() -> None:
    assert 'sudo -n bash --norc -c "$1"' in remote.command("true", sudo=True)


@pytest.mark.parametrize("script", ["#" * (120 * 1024 + 1), "é" * (60 * 1024 + 1), "'" * (30 * 1024) + "' '" * 30_000])
def test_script_too_long(script: str) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        remote.command(script, sudo=False)


@given(st.binary(), st.lists(st.binary(), max_size=20))
def test_output_in_any_pieces(noise: bytes, blocks: list[bytes]) -> None:
    printed = b"".join(blocks)
    if remote.STARTED.encode() in noise:
        return
    heard: list[str] = []
    output = remote.Output(heard.append)
    whole = noise + f"{remote.STARTED}\n".encode() + printed
    at = 0
    for block in [noise, *blocks, whole]:
        output.take(whole[at : at + len(block)])
        at += len(block)
    assert (output.started, bytes(output.stdout)) == (True, printed)
    assert heard == [line.decode(errors="replace") for line in printed.split(b"\n")[:-1]]


def test_output_of_a_script_that_was_not_started() -> None:
    heard: list[str] = []
    output = remote.Output(heard.append)
    output.take(b"This account is currently not available.\n")
    assert (output.started, heard) == (False, [])


# known_hosts


@pytest.fixture
def lines(tmp_path: Path) -> list[Path]:
    file = tmp_path / "known_hosts"
    file.write_text(
        "\n".join(
            [
                "# a comment",
                f"web,192.0.2.7 ssh-ed25519 {BLOB} a comment",
                f"*.example,!bad.example ssh-rsa {BLOB}",
                f"[192.0.2.7]:2222 ssh-ed25519 {BLOB}",
                "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-rsa " + BLOB,
                f"@revoked lost ssh-ed25519 {BLOB}",
                f"@cert-authority web ssh-ed25519 {BLOB}",
                "web ssh-ed25519 not*base64",
                "|1|damaged ssh-ed25519 " + BLOB,
                "too short",
            ]
        )
    )
    return [file, tmp_path / "missing"]


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("web", [2, 7]),
        ("WEB", [2, 7]),
        ("192.0.2.7", [2]),
        ("[192.0.2.7]:2222", [4]),
        ("[192.0.2.7]:22", []),
        ("2", []),
        ("a.example", [3]),
        ("bad.example", []),
        ("192.168.1.61", [5]),  # hashed by OpenSSH: the example of its manual page sshd(8)
        ("lost", [6]),
        ("other", []),
    ],
)
def test_lines_about_a_host(lines: list[Path], name: str, numbers: list[int]) -> None:
    assert [key.line for key in known_keys(lines, name)] == numbers


def test_what_a_line_says(lines: list[Path]) -> None:
    (key,) = known_keys(lines, "lost")
    assert (key.kind, key.blob, key.revoked, key.authority) == ("ssh-ed25519", b"key", True, False)
    assert str(key) == f"known {fingerprint(b'key')} ssh-ed25519 ({lines[0]}:6)"
    _, key = known_keys(lines, "web")
    assert (key.revoked, key.authority) == (False, True)
    assert str(key) == f"authority {fingerprint(b'key')} ssh-ed25519 ({lines[0]}:7)"


def test_file_that_changes_is_read_again(lines: list[Path]) -> None:
    assert known_keys(lines, "new") == []
    lines[0].write_text(f"new ssh-ed25519 {BLOB}\n")
    assert len(known_keys(lines, "new")) == 1


# OpenSSH's command line


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_command_line(home: Path) -> None:
    known = f'"/mesh/known_hosts" "{home}/.ssh/known_hosts" "/etc/ssh/ssh_known_hosts"'
    assert ssh_command(LOGIN) == [
        *("ssh", "-o", "IdentitiesOnly=yes", "-F", "none", "-i", "/mesh/key", "-p", "2222"),
        *("-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=accept-new"),
        *("-J", "none", "deploy@192.0.2.7"),
    ]


def test_command_line_enters_the_namespace() -> None:
    command = ssh_command(Login("web", "web", Path("/mesh/known_hosts"), namespace=Path("/run/netns/x")))
    assert command[:5] == ["nsenter", "--net=/run/netns/x", "ssh", "-F", "none"]
    assert 'UserKnownHostsFile="/mesh/known_hosts"' in command


# What a login means


def test_login_that_leaves_nothing_open_asks_nobody() -> None:
    target = resolve(LOGIN)
    assert (target.address, target.port, target.user) == ("192.0.2.7", 2222, "deploy")
    assert (target.identities, target.only_identities, target.jump) == ((Path("/mesh/key"),), True, None)
    assert target.at == "web deploy@192.0.2.7:2222"


@pytest.mark.parametrize(("port", "known_as"), [(22, "192.0.2.7"), (2222, "[192.0.2.7]:2222")])
def test_name_in_known_hosts(port: int, known_as: str) -> None:
    assert resolve(replace(LOGIN, port=port)).known_as == known_as


@pytest.mark.parametrize(
    ("jump", "right"),
    [("b", True), ("ops@Bastion:65535", True), ("b:1", True), ("b:0", False), ("b:65536", False), ("b:99999", False)],
)
def test_a_jump_host_has_a_port_that_there_can_be(jump: str, right: bool) -> None:
    text = f"{INVENTORY}ssh: {{jump: '{jump}'}}\n"
    if right:
        assert mesh_of(text).edges[0].ssh.jump == jump
        return
    with pytest.raises(Failed) as failed:
        mesh_of(text)
    assert [problem.code for problem in failed.value.problems] == ["inventory/bad-value"]


def test_a_login_takes_as_long_as_the_inventory_lets_it(tmp_path: Path) -> None:
    text = f"{INVENTORY}ssh: {{timeout: 25}}\n".replace("10.77.0.10}", "10.77.0.10, ssh: {timeout: 3}}")
    hosts = list(mesh_of(text).hosts.values())
    allowed = [login.timeout_s for login in Existing(tmp_path).logins(hosts).values()]
    assert allowed == [3, *[25] * (len(hosts) - 1)]


def test_one_run_may_wait_for_another_time(tmp_path: Path) -> None:
    (tmp_path / "inventory.yaml").write_text(f"{INVENTORY}provider: existing\nssh: {{timeout: 25}}\n")
    workspace = replace(open_workspace(tmp_path / "inventory.yaml"), timeout_s=4)
    (edge,) = workspace.mesh.edges
    assert workspace.fleet([edge]).login(edge.name).timeout_s == 4
