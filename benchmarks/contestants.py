"""Contestants: their command lines, and the files that tell each of the hosts."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.hosts import ROOT, Hosts, entering
from benchmarks.measure import Command

BENCHMARKS = ROOT / "benchmarks"
PAYLOAD = BENCHMARKS / "payload"
PEERS = ROOT / ".venv-bench"
PYTHON = sys.executable


def envoymesh(made: Hosts, said: str, *words: str, namespace: str = "") -> Command:
    """Return `provision` of all the hosts; its output must have `said`."""
    argv = [PYTHON, "-m", "invoke", "provision", "--inventory", str(made.inventory), *words]
    return Command("envoymesh", entering(namespace or made.near, argv), ROOT, said)


def same_work(made: Hosts, said: str) -> Command:
    """Return the peers' work, done by envoymesh's engine."""
    argv = [PYTHON, "-m", "benchmarks.same_work", str(made.inventory)]
    return Command("envoymesh", entering(made.near, argv), ROOT, said)


def floor(made: Hosts, *, namespace: str = "") -> Command:
    """Return a connection to each host and one command on it."""
    command = made.floor("true")
    argv = entering(namespace, command.argv[2:]) if namespace else command.argv
    return Command(command.name, argv, command.folder)


def stream(made: Hosts, packed: Path) -> Command:
    """Return the bare transfer of a packed file to each host."""
    return made.floor("gzip -dc > /opt/floor", "--send", str(packed))


def pyinfra(made: Hosts, envoy: Path, said: str = "") -> Command:
    """Return pyinfra's run of its deploy."""
    folder = made.folder / "pyinfra"
    folder.mkdir(exist_ok=True)
    (folder / "inventory.py").write_text(pyinfra_inventory(made.addresses, made.key, made.known_hosts))
    data = ["--data", f"payload={PAYLOAD}", "--data", f"envoy={envoy}"]
    argv = [str(PEERS / "bin/pyinfra"), "-y", "--no-wait", *data, "inventory.py", str(BENCHMARKS / "pyinfra/deploy.py")]
    return Command("pyinfra", entering(made.near, argv), folder, said)


def pyinfra_inventory(addresses: dict[str, str], key: Path, known_hosts: Path) -> str:
    """Return the hosts as pyinfra reads them: Python."""
    data = {
        "ssh_user": "root",
        "ssh_key": str(key),
        "ssh_known_hosts_file": str(known_hosts),
        "ssh_strict_host_key_checking": "yes",
        "ssh_allow_agent": False,
        "ssh_look_for_keys": False,
    }
    hosts = [(name, {"ssh_hostname": address, **data}) for name, address in addresses.items()]
    return f"hosts = {hosts!r}\n"


def ansible(made: Hosts, envoy: Path, said: str = "") -> Command:
    """Return Ansible's run of its playbook."""
    folder = made.folder / "ansible"
    folder.mkdir(exist_ok=True)
    (folder / "inventory.ini").write_text(ansible_inventory(made.addresses, made.key, made.known_hosts))
    data = ["-e", json.dumps({"payload": str(PAYLOAD), "envoy": str(envoy)})]
    playbook = str(BENCHMARKS / "ansible/playbook.yaml")
    argv = [str(PEERS / "bin/ansible-playbook"), "-i", "inventory.ini", *data, playbook]
    environment = {
        "ANSIBLE_CONFIG": str(BENCHMARKS / "ansible/ansible.cfg"),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(made.sockets),
        "LC_ALL": "C.UTF-8",
    }
    times = len(made.addresses) if said else 1
    return Command("ansible-core", entering(made.near, argv), folder, said, times, environment)


def ansible_inventory(addresses: dict[str, str], key: Path, known_hosts: Path) -> str:
    """Return the hosts as Ansible reads them: INI."""
    return "\n".join(
        [
            "[all]",
            *(f"{name} ansible_host={address}" for name, address in addresses.items()),
            "[all:vars]",
            "ansible_user=root",
            f"ansible_ssh_private_key_file={key}",
            f"ansible_ssh_common_args=-o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes",
            "",
        ]
    )


def hang_up(made: Hosts) -> None:
    """End the connections that Ansible keeps for a next run: every run begins without any, as the others' do."""
    for path in made.sockets.glob("*"):
        end = ["ssh", "-F", "none", "-o", f"ControlPath={path}", "-O", "exit", "any"]
        subprocess.run(end, capture_output=True, check=False)
