"""Real OpenSSH servers, agents and users for the tests of the transport."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envoymesh.problems import Failed, Problem
from envoymesh.transport.login import Login
from envoymesh.transport.ssh import connect

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"  # it insists on an absolute path


def until(what: str, holds: Callable[[], bool], timeout_s: float = 10) -> None:
    """Wait for a condition."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        time.sleep(0.01)


def new_key(file: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair and return the private key's file."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", file, "-C", file.name], check=True)
    return file


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Sshd:
    """A server on 127.0.0.1 with its own host key, that lets `key` in. Started by `running`."""

    def __init__(self, folder: Path, options: Sequence[str], namespace: Path | None) -> None:
        self.folder = folder
        self.namespace = namespace
        self.port = free_port()
        self.key = new_key(folder / "id_test")
        self.host_key = new_key(folder / "host_key")
        self.log = folder / "log"
        self.authorized = folder / "authorized_keys"
        self.authorized.write_text(self.key.with_suffix(".pub").read_text())
        self.config = folder / "sshd_config"
        self.config.write_text("\n".join([*options, *self._settings(), ""]))
        self._process: subprocess.Popen[bytes] | None = None

    def _settings(self) -> list[str]:
        return [
            "ListenAddress 127.0.0.1",
            f"Port {self.port}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.authorized}",
            "StrictModes no",
            "UsePAM no",
            "PidFile none",
            "LogLevel VERBOSE",
            "Match User root",
            "SetEnv HOME=/nonexistent",  # bash would run what the tester has in ~/.bashrc before every script
        ]

    def login(self, known_hosts: Path, **more: Any) -> Login:
        """Return a login as root with the server's key."""
        settings: dict[str, Any] = {
            "host": "web",
            "address": "127.0.0.1",
            "known_hosts": known_hosts,
            "port": self.port,
            "user": "root",
            "key": self.key,
            "jump": "none",
            "namespace": self.namespace,
        }
        return Login(**(settings | more))

    def start(self) -> None:
        """Start, and wait until it listens."""
        Path("/run/sshd").mkdir(exist_ok=True)
        enter = ["nsenter", f"--net={self.namespace}"] if self.namespace else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*enter, SSHD, "-D", "-e", "-f", self.config], stderr=log)
        until("sshd listens", lambda: f"listening on 127.0.0.1 port {self.port}" in self.log.read_text())

    def stop(self) -> None:
        """Stop the server and what it runs."""
        assert self._process is not None
        children = _children(self._process.pid)
        self._process.terminate()
        self._process.wait(10)
        for child in children:
            _kill(child)

    def new_host_key(self, kind: str = "ed25519") -> None:
        """Show another host key from now on, as a host that was installed anew."""
        self.stop()
        for file in (self.host_key, self.host_key.with_suffix(".pub")):
            file.unlink()
        new_key(self.host_key, kind)
        self.log.write_text("")
        self.start()

    def show_certificate(self, authority: Path, *options: str) -> None:
        """Show a certificate of an authority for the host key from now on, made with options of ssh-keygen."""
        public = self.host_key.with_suffix(".pub")
        subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "web", *options, public], check=True)
        self.stop()
        self.config.write_text(f"HostCertificate {self.host_key}-cert.pub\n{self.config.read_text()}")
        self.log.write_text("")
        self.start()

    def logins(self) -> int:
        """Return how many logins it has accepted."""
        return self.log.read_text().count("Accepted publickey")

    def drops(self) -> int:
        """Return how many connections it has dropped at once, above its MaxStartups."""
        return self.log.read_text().count("drop connection")


@contextmanager
def running(*options: str, namespace: Path | None = None) -> Iterator[Sshd]:
    """Run a server; further lines of sshd_config win over the usual ones."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # other users' keys are read as those users
        server = Sshd(Path(folder), options, namespace)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def user(shell: str = "/bin/bash") -> Iterator[str]:
    """Make a user of this box for a while."""
    name = f"emt{uuid.uuid4().hex[:8]}"
    subprocess.run(["useradd", "--create-home", "--shell", shell, "--password", "*", name], check=True)
    try:
        yield name
    finally:
        until("the user is gone", lambda: _userdel(name))


@contextmanager
def namespace() -> Iterator[Path]:
    """Make a network namespace with a loopback interface."""
    name = f"emt{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield Path("/run/netns") / name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@contextmanager
def agent(folder: Path, *keys: Path, passphrase: str = "") -> Iterator[Path]:
    """Run an agent that holds `keys`, and return its socket."""
    place = folder / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL)
    try:
        until("the agent listens", place.exists)
        ask = folder / "askpass"
        ask.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
        ask.chmod(0o700)
        environment = os.environ | {
            "SSH_AUTH_SOCK": str(place),
            "SSH_ASKPASS": str(ask),
            "SSH_ASKPASS_REQUIRE": "force",
        }
        for key in keys:
            subprocess.run(["ssh-add", "-q", key], env=environment, stdin=subprocess.DEVNULL, check=True)
        yield place
    finally:
        process.terminate()
        process.wait(10)


def problem_of(login: Login, timeout_s: float = 10) -> Problem:
    """Return the one problem that keeps `login` from logging in."""
    with pytest.raises(Failed) as failed, connect(replace(login, timeout_s=timeout_s)):
        pass
    (problem,) = failed.value.problems
    return problem


def _userdel(name: str) -> bool:
    return subprocess.run(["userdel", "--remove", name], capture_output=True, check=False).returncode in (0, 6)


def _children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    children = [int(word) for word in found.stdout.split()]
    return [*children, *(grandchild for child in children for grandchild in _children(child))]


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
