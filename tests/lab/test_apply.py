"""Applies that fail half way, on real hosts: what was there before is there after, and serves."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from envoymesh.events import Event, Outcome, OutcomeKind
from envoymesh.model.mesh import HostName
from envoymesh.problems import Failed, Problem
from envoymesh.resources import Directory, File, Resource, User
from envoymesh.run import converge
from envoymesh.run.converge import apply, read
from envoymesh.run.fleet import Fleet
from envoymesh.run.provision import desired_of
from envoymesh.wire.apply import APPLY_SCRIPT
from tests.labs import eventually
from tests.meshes import TestMesh

HOST = HostName("service2-1")


class Managed:
    """A host on which more is managed than the mesh asks for."""

    def __init__(self, lab: TestMesh, fleet: Fleet) -> None:
        self.lab, self.fleet = lab, fleet
        self.kept = tuple(desired_of(lab.workspace, [lab.workspace.mesh.hosts[HOST]])[HOST])
        self.told: list[str] = []

    def apply(self, *more: Resource, after: Callable[[], object] = lambda: None, exact: bool = False) -> Outcome:
        """Apply, and do something between reading and changing."""
        reading = replace(read(self.fleet, HOST, (*self.kept, *more)), exact=exact)
        after()
        return apply(self.fleet, reading, self.lab.workspace, self._tell)

    def refused(self, *more: Resource) -> Problem:
        """Return the problem of an apply that must fail."""
        with pytest.raises(Failed) as failed:
            self.apply(*more)
        [problem] = failed.value.problems
        return problem

    def _tell(self, event: Event) -> None:
        self.told.append(event.text)


@pytest.fixture
def managed(lab: TestMesh) -> Iterator[Managed]:
    workspace = lab.workspace
    with workspace.fleet(list(workspace.mesh.hosts.values())) as fleet:
        managed = Managed(lab, fleet)
        yield managed
        managed.apply()
    lab.run("plan")


@contextmanager
def undone(lab: TestMesh, *commands: str) -> Iterator[ExitStack]:
    """Run commands on the host in the end, whatever happens."""
    with ExitStack() as stack:
        for command in reversed(commands):
            stack.callback(lab.on, HOST, command)
        yield stack


def files(content: bytes) -> Sequence[Resource]:
    folder = "/etc/envoymesh/more"
    return (Directory(folder), *(File(f"{folder}/{name}", content * 20_000) for name in "abc"))


def test_what_cannot_be_kept_for_putting_back_is_not_replaced(lab: TestMesh, managed: Managed) -> None:
    managed.apply(*files(b"1"))
    kept = "/var/lib/envoymesh"
    small = f"mount -t tmpfs -o size=$(($(du -sk {kept} | cut -f1) + 52))k,mode=755 tmpfs {kept}"
    with undone(lab, f"umount {kept}", "rm -r /root/kept"):
        lab.on(HOST, f"cp -a {kept} /root/kept && {small} && cp -a /root/kept/. {kept}")
        problem = managed.refused(*files(b"2"))
        assert "No space left on device" in "\n".join(problem.saw)
        assert "nothing was replaced" in problem.now
        assert lab.on(HOST, "cat /etc/envoymesh/more/? | tr -d 1 | wc -c; cat /etc/envoymesh/more/? | wc -c") == (
            "0\n60000\n"
        )


def test_a_host_that_has_changed_since_it_was_read_is_read_again(lab: TestMesh, managed: Managed) -> None:
    [folder, a, b, c] = files(b"1")
    outcome = managed.apply(folder, a, after=partial(managed.apply, folder, a, b, c))
    assert "another apply has changed it meanwhile; reading once more" in managed.told
    assert outcome.kind is OutcomeKind.CHANGED
    assert {change.address for change in outcome.changes} == {b.address, c.address}
    assert lab.on(HOST, "ls /etc/envoymesh/more") == "a\n"


def test_a_host_that_has_changed_since_it_was_read_is_left_alone_where_that_plan_alone_is_wanted(
    lab: TestMesh, managed: Managed
) -> None:
    there, mine = File("/etc/there", b"x"), File("/etc/mine", b"x")
    with pytest.raises(Failed) as failed:
        managed.apply(mine, after=lambda: managed.apply(there), exact=True)
    assert [p.code for p in failed.value.problems] == ["apply/moved"]
    assert lab.on(HOST, "ls /etc/there /etc/mine 2>/dev/null; true") == "/etc/there\n"


def test_another_apply_at_work_is_told(lab: TestMesh, managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "APPLY_SCRIPT", APPLY_SCRIPT.replace("flock -w 60", "flock -w 1"))
    lab.on(HOST, "systemd-run --quiet --unit=other flock /run/envoymesh/lock sleep 60")
    with undone(lab, "systemctl stop other"):
        problem = managed.refused(*files(b"1"))
        assert problem.code == "lock/held"
        assert "nothing was replaced" in problem.now
    assert managed.apply(*files(b"1")).kind is OutcomeKind.CHANGED


def test_what_cannot_be_removed_leaves_the_new_in_place(lab: TestMesh, managed: Managed) -> None:
    user, [folder, *rest] = User("envoymesh-more"), files(b"1")
    managed.apply(user, folder, *rest)
    lab.on(HOST, "systemd-run --quiet --unit=other --uid=envoymesh-more sleep 600")
    with undone(lab, "systemctl stop other"):
        eventually(lambda: lab.on(HOST, "pgrep -u envoymesh-more || true"), what="the user's process")
        problem = managed.refused(*files(b"2"))
        assert problem.at == f"{HOST}  user:envoymesh-more"
        assert "the change is live and serves" in problem.now
        assert lab.on(HOST, "head -c 1 /etc/envoymesh/more/c") == "2"
        lab.run("check", code=2)
    assert [c.address for c in managed.apply(*files(b"2")).changes] == ["user:envoymesh-more"]


def test_a_directory_in_the_way_of_a_file_is_left_alone(lab: TestMesh, managed: Managed) -> None:
    [folder, a, b, c] = files(b"1")
    managed.apply(folder, a)
    lab.on(HOST, "mkdir /etc/envoymesh/more/c; touch /etc/envoymesh/more/c/mine")
    problem = managed.refused(folder, a, b, c)
    assert "is a directory with something in it" in "\n".join(problem.saw)
    assert "nothing was replaced" in problem.now
    assert lab.on(HOST, "ls /etc/envoymesh/more /etc/envoymesh/more/c").split() == [
        *("/etc/envoymesh/more:", "a", "c", "/etc/envoymesh/more/c:", "mine")
    ]
    lab.on(HOST, "rm /etc/envoymesh/more/c/mine")
    managed.apply(folder, a, b, c)


def test_a_link_to_a_directory_is_as_good_as_one(lab: TestMesh, managed: Managed) -> None:
    move = "mv {0} {1} && ln -s {1} {0}"
    lab.on(HOST, move.format("/opt/envoymesh", "/srv/elsewhere"))
    with undone(lab, "rm /opt/envoymesh && mv /srv/elsewhere /opt/envoymesh"):
        lab.run("plan")
        lab.on(HOST, "chmod 0700 /srv/elsewhere")
        assert managed.apply().kind is OutcomeKind.CHANGED
        lab.run("plan")


def test_nobody_who_reads_is_no_problem(lab: TestMesh) -> None:
    lab.on(HOST, "echo '# by hand' | tee -a /etc/systemd/system/envoymesh-app-*.service")
    for words in (["plan", "--quiet"], ["plan", "--quiet", "--json"]):
        with subprocess.Popen(
            lab.argv(*words), cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == ""
        assert process.returncode == 2
