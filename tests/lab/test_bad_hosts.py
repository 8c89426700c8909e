"""Hosts in a bad way: each is one clear error, the others are done, and the next provision repairs."""

import base64
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from envoymesh.machines import netns
from envoymesh.model.mesh import HostName
from envoymesh.resources import File
from envoymesh.run.converge import read
from envoymesh.run.provision import desired_of
from tests.lab.test_bad_days import PUSHED, kill_machine, problem
from tests.labs import run
from tests.meshes import TestMesh

REFUSES = "tcp sport 22 tcp flags & rst == 0 reject with tcp reset"
SAYS_NOTHING = "tcp sport 22 meta length > 60 drop"
"""Connections are made, by packets that carry nothing, and then nothing comes."""

UNITS = "/etc/systemd/system"
EDITED = {
    "front-envoy": f"chmod 600 {UNITS}/envoymesh-front.service",
    "service1-1": f"chmod 600 {UNITS}/envoymesh-app-*.service",
    "service2-1": f"chmod 600 {UNITS}/envoymesh-app-*.service",
}
"""What gives every host something to do, and no client a reason to wait for it."""

TO_VALIDATE = "echo '# by hand' >> /etc/envoymesh/sidecar/cds.yaml"


@contextmanager
def ssh_that(lab: TestMesh, host: str, rule: str) -> Iterator[None]:
    """Have what the host's sshd sends treated by a rule of nft."""
    nft = ["nsenter", f"--net={netns.path(f'{lab.workspace.mesh.identifier}-{host}')}", "nft"]
    chain = f"table inet bad {{ chain output {{ type filter hook output priority 0; {rule}; }}; }}"
    subprocess.run([*nft, chain], check=True)
    try:
        yield
    finally:
        subprocess.run([*nft, "delete table inet bad"], check=True)


def on_all(lab: TestMesh, scripts: dict[str, str]) -> list[str]:
    """Run a script on each host, all at once."""
    workspace = lab.workspace
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(run, workspace.provider, workspace.mesh.hosts[HostName(h)], s) for h, s in scripts.items()]
        return [job.result() for job in jobs]


AT_ONCE = ("--canary", "0", "--max-parallel", "100%", "--max-failed", "3")


def outcomes(text: str) -> dict[str, str]:
    """Return what became of each host, as `provision` printed it."""
    lines = [line.split() for line in text.splitlines() if line.startswith(tuple(EDITED))]
    return {words[0]: words[1] for words in lines}


def is_repaired(lab: TestMesh, *hosts: str) -> None:
    """See that one more run repairs those hosts, that nothing is left to do then, and nothing lies about."""
    found = outcomes(lab.run("provision", *AT_ONCE).stdout)
    assert {host for host, outcome in found.items() if outcome == "changed"} == set(hosts)
    lab.run("plan")
    lab.run("check")
    left = on_all(lab, dict.fromkeys(EDITED, "find / -xdev -name '*.envoymesh' -o -name '*.envoymesh.*'"))
    assert left == ["", "", ""]


def test_hosts_that_refuse_or_hang_at_the_banner_do_not_keep_the_others(lab: TestMesh) -> None:
    on_all(lab, EDITED)
    with ssh_that(lab, "service1-1", REFUSES), ssh_that(lab, "service2-1", SAYS_NOTHING):
        done = lab.run("provision", code=4)
    assert done.stderr.count("problem ssh/unreachable: ") == 2, done.stderr
    assert "`service1-1` cannot be reached at 10.81.0.21 port 22" in done.stderr
    assert "`service2-1` did not answer within 10 s" in done.stderr
    assert outcomes(done.stdout) == {
        "front-envoy": "changed",
        "service1-1": "unreachable",
        "service2-1": "unreachable",
    }
    is_repaired(lab, "service1-1", "service2-1")


def test_a_host_that_falls_silent_in_the_middle_is_given_up_and_ends_by_itself(lab: TestMesh) -> None:
    on_all(lab, {**EDITED, "service1-1": TO_VALIDATE})
    with lab.start("provision", *AT_ONCE) as process:
        assert process.stderr is not None
        assert any("service1-1" in line and "validates" in line for line in process.stderr)
        with ssh_that(lab, "service1-1", "tcp sport 22 drop"):
            output, errors = process.communicate(timeout=120)
    assert process.returncode == 4, output + errors
    assert "problem ssh/lost: the connection to `service1-1` was lost" in errors
    assert "service1-1: its apply was cut off; the next provision completes it" in errors
    assert outcomes(output) == {"front-envoy": "changed", "service1-1": "unreachable", "service2-1": "changed"}
    is_repaired(lab)


def test_a_host_that_dies_between_stage_and_rename_is_repaired(lab: TestMesh) -> None:
    lab.on("service1-1", f"{TO_VALIDATE}; {PUSHED}")
    with lab.start("provision", *AT_ONCE) as process:
        assert process.stderr is not None
        assert any("service1-1" in line and "validates" in line for line in process.stderr)
        kill_machine(lab, "service1-1")
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 4, output + errors
    assert "service1-1: its apply was cut off; the next provision completes it" in errors
    assert "service1-1" in lab.run("up").stdout
    is_repaired(lab)


def test_hosts_that_are_read_only_replace_nothing_and_serve_on(lab: TestMesh) -> None:
    fixed = {"service1-1": UNITS, "service2-1": "/var/lib/envoymesh"}
    read_only = "mount --bind {0} {0} && mount -o remount,ro,bind {0}"
    on_all(lab, EDITED)
    on_all(lab, {host: read_only.format(folder) for host, folder in fixed.items()})
    try:
        done = lab.run("provision", *AT_ONCE, code=1)
        assert done.stderr.count("Read-only file system") == 2, done.stderr
        for host in fixed:
            assert f"now  {host}: nothing was replaced; what served before still serves" in done.stderr
        assert outcomes(done.stdout) == {"front-envoy": "changed", "service1-1": "failed", "service2-1": "failed"}
        assert (lab.get("/service/1")[0], lab.get("/service/2")[0]) == (200, 200)
    finally:
        on_all(lab, {host: f"umount {folder}" for host, folder in fixed.items()})
    is_repaired(lab, *fixed)


def test_a_damaged_manifest_removes_nothing_and_is_written_anew(lab: TestMesh) -> None:
    write = "/var/lib/envoymesh/manifest"
    on_all(
        lab,
        {
            "front-envoy": f"head -c 3000 /dev/urandom > {write}",
            "service1-1": f"printf 'directory:/etc/envoymesh\\0artifact:/opt/envoymesh' > {write}",
            "service2-1": f": > {write}",
        },
    )
    assert outcomes(lab.run("provision").stdout) == dict.fromkeys(EDITED, "changed")
    on_all(lab, dict.fromkeys(EDITED, "test -x /opt/envoymesh/envoy/*/envoy"))
    lab.run("plan")
    lab.run("check")


def test_another_who_edits_the_users_is_waited_for_and_told(lab: TestMesh) -> None:
    """As the scripts of a package do, while apt installs it."""
    hold = "import fcntl, time; f = open('/etc/.pwd.lock', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(600)"
    lab.on(
        "service1-1",
        "systemctl stop 'envoymesh-*' && userdel envoymesh-app && touch /var/lib/dpkg/lock-frontend && "
        "systemd-run --quiet --unit=apt flock /var/lib/dpkg/lock-frontend "
        f'/usr/bin/python3 -c "{hold}"',
    )
    try:
        told = problem(lab.run("provision", code=1), "apply/failed")
        assert "service1-1  user:envoymesh-app" in told
        assert "cannot lock /etc/" in told
        assert "nothing was replaced" in told
    finally:
        lab.on("service1-1", "systemctl stop apt")
    is_repaired(lab, "service1-1")


def test_one_session_at_a_time_is_enough(lab: TestMesh) -> None:
    file = "/etc/ssh/sshd_config.d/00-one.conf"
    on_all(lab, {h: f"echo MaxSessions 1 > {file} && systemctl reload ssh && {s}" for h, s in EDITED.items()})
    try:
        assert outcomes(lab.run("provision").stdout) == dict.fromkeys(EDITED, "changed")
        for words in (("check",), ("status",), ("history",), ("plan",), ("admin", "front-envoy", "/ready")):
            lab.run(*words)
    finally:
        on_all(lab, dict.fromkeys(EDITED, f"rm {file} && systemctl reload ssh"))


class Processes(threading.Thread):
    """Looks at the command line and the environment of every process of this box, those of its hosts too."""

    def __init__(self) -> None:
        super().__init__(name="processes", daemon=True)
        self.seen: set[bytes] = set()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.01):
            for path in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    with suppress(OSError):
                        self.seen.add((path / name).read_bytes())

    def __enter__(self) -> "Processes":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.join()


def test_no_private_key_is_told_or_kept_where_others_read(lab: TestMesh) -> None:
    folder, front = lab.folder / ".envoymesh", HostName("front-envoy")
    workspace = lab.workspace
    resources = desired_of(workspace, workspace.mesh.edges)[front]
    [key] = [r for r in resources if isinstance(r, File) and r.secret]
    line = (folder / "front/front-envoy-key.pem").read_bytes().splitlines()[2]
    start = key.content.index(line)
    encoded = slice(start // 3 * 4 + 4, start // 3 * 4 + 54)
    marks = (line[:50], base64.b64encode(key.content)[encoded])
    told: list[str] = []

    def ran(*words: str, code: int | None = 0) -> None:
        done = lab.run(*words, code=code)
        told.extend((done.stdout, done.stderr))

    with Processes() as processes:
        lab.on(front, f"rm {key.path}")
        ran("plan", code=2)
        ran("plan", "--json", code=2)
        ran("provision", "--message", "a key")
        lab.on(front, f"sed -i s/A/B/ {key.path}")  # another key, that the host is still to be rid of
        another = lab.on(front, f"base64 -w0 {key.path}").encode()[encoded]
        with workspace.fleet(workspace.mesh.edges) as fleet:
            told.append(repr((resources, read(fleet, front, resources))))
        ran("plan", code=2)
        ran("provision", "--json")
        for command in (("history",), ("history", "--json"), ("rollback",), ("provision",), ("check", "--json")):
            ran(*command, code=None)
    words = " ".join(f"-e {mark.decode()}" for mark in marks)
    files = f"find /etc /var /run /tmp /root -xdev -type f -perm /007 -exec grep -alF {words} {{}} +"
    script = f"{files}; journalctl -o export --no-pager | grep -aF {words} || true"
    found = on_all(lab, dict.fromkeys(EDITED, script))
    assert found == ["", "", ""]
    kept = [
        f for f in folder.rglob("*") if f.is_file() and not f.name.endswith("-key.pem") and "machines" not in f.parts
    ]
    places = [*(text.encode() for text in told), *processes.seen, *(f.read_bytes() for f in kept)]
    assert any(b"systemctl" in seen for seen in processes.seen), "it looked while hosts were changed"
    assert not [p[:200] for p in places if any(mark in p for mark in (*marks, another))]
    public = {f for f in folder.rglob("*-key.pem") if f.stat().st_mode & 0o077}
    assert public == set()
