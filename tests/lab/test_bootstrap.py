"""`mesh` from nothing to Invoke: real environments, made by real pip from one locked package."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.layers import ROOT

TASKS = "from invoke import task\n\n@task\ndef where(c):\n    import os\n    print(os.getcwd())\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a project of one task whose lock has Invoke alone."""
    project = tmp_path / "a project"
    project.mkdir()
    shutil.copy(ROOT / "mesh", project)
    found = re.search(r"^invoke==[^#]*", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert found
    (project / "requirements.txt").write_text(found[0])
    (project / "tasks.py").write_text(TASKS)
    (project / "inventory.yaml").write_text("provider: existing\n")
    return project


def run(script: Path, *arguments: str, path: str = "", user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run `script` from `/`; `path` replaces PATH."""
    environment = {**os.environ, "PATH": path or os.environ["PATH"], "CI": ""}
    return subprocess.run(
        [str(script), *arguments], cwd="/", env=environment, user=user, capture_output=True, text=True, check=False
    )


def test_first_run_makes_the_environment_and_later_ones_use_it(checkout: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(checkout / "mesh")
    first, second = run(link, "where"), run(link, "where")
    assert (first.returncode, first.stdout) == (0, f"{checkout}\n"), first.stderr
    assert "making .venv" in first.stderr
    assert (second.returncode, second.stdout, second.stderr) == (0, f"{checkout}\n", "")
    assert "where" in run(link).stdout

    with (checkout / "requirements.txt").open("a") as lock:
        lock.write("# newer\n")
    assert "making .venv" in run(link, "where").stderr, "the lock has changed"
    moved = checkout.rename(tmp_path / "moved")
    after = run(moved / "mesh", "where")
    assert (after.returncode, after.stdout) == (0, f"{moved}\n"), "scripts in .venv name the old place"


def test_two_at_once_make_one_environment(checkout: Path) -> None:
    both = [
        subprocess.Popen([checkout / "mesh", "where"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [process.communicate() for process in both]
    assert [out for out, _ in printed] == [f"{checkout}\n"] * 2
    assert sum("making .venv" in err for _, err in printed) == 1


def test_an_environment_left_half_made_by_a_kill_is_completed(checkout: Path) -> None:
    with subprocess.Popen([checkout / "mesh", "where"], stderr=subprocess.DEVNULL, start_new_session=True) as process:
        while not (checkout / ".venv/bin/python3").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (checkout / ".venv/bin/invoke").exists()
    assert run(checkout / "mesh", "where").stdout == f"{checkout}\n"


def test_a_lock_that_does_not_match_what_the_index_has_is_refused(checkout: Path) -> None:
    lock = checkout / "requirements.txt"
    lock.write_text(re.sub(r"sha256:\w+", "sha256:" + "0" * 64, lock.read_text()))
    refused = run(checkout / "mesh", "where")
    assert refused.returncode == 1
    assert "run the same command again" in refused.stderr
    assert not (checkout / ".venv/stamp").exists()


@pytest.fixture
def bare(checkout: Path, tmp_path: Path) -> str:
    """Return a PATH without Python, ssh and the tools of nspawn; nobody may run the checkout's script with it."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "readlink", "grep", "cat", "id", "flock"):
        (tools / name).symlink_to(str(shutil.which(name)))
    script = checkout / "mesh"
    script.write_text(script.read_text().replace(":/usr/sbin:/sbin", ""))
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    return str(tools)


def test_without_apt_get_the_tools_to_install_are_named(checkout: Path, bare: str) -> None:
    got = run(checkout / "mesh", "up", "--provider", "nspawn", path=bare)
    assert got.returncode == 1
    assert "no apt-get here" in got.stderr
    assert "missing: systemd-container (systemd-nspawn" in got.stderr
    assert "python3 with its venv module is needed" in got.stderr


def test_without_root_and_sudo_the_command_for_root_is_printed(checkout: Path, bare: str) -> None:
    Path(bare, "apt-get").symlink_to("/bin/false")
    got = run(checkout / "mesh", "up", "--provider=nspawn", path=bare, user=65534)
    assert got.returncode == 1
    assert re.search("neither root nor sudo here; as root: apt-get install .*systemd-container", got.stderr)


def test_another_provider_asks_for_no_tools_of_nspawn(checkout: Path, bare: str) -> None:
    got = run(checkout / "mesh", "up", "--provider", "vagrant", path=bare)
    assert "missing: openssh-client" in got.stderr
    assert "systemd-container" not in got.stderr


@pytest.mark.parametrize(
    ("command", "tools"),
    [
        ("exec web 'test -f /x'", {"openssh-client"}),
        ("scale up", {"openssh-client"}),
        ("up --provider=auto", {"openssh-client", "systemd-container"}),
        ("test", {"openssh-client", "systemd-container"}),
        ("", set()),
        ("--help up", set()),
        ("up --help", set()),
        ("test -h", set()),
        ("--list", set()),
    ],
)
def test_only_the_task_says_which_tools_are_needed(checkout: Path, bare: str, command: str, tools: set[str]) -> None:
    got = run(checkout / "mesh", *shlex.split(command), path=bare)
    assert "python3-venv" in wanted(got.stderr)
    assert wanted(got.stderr) & {"openssh-client", "systemd-container"} == tools


@pytest.mark.parametrize("provider", ["provider: nspawn\n", "provider: auto\n", ""])
def test_the_inventory_that_is_named_says_which_tools_are_needed(checkout: Path, bare: str, provider: str) -> None:
    (checkout / "other.yaml").write_text(f"name: other\n{provider}")
    for words in (["--inventory", "other.yaml"], ["--inventory=other.yaml"]):
        assert "systemd-container" in wanted(run(checkout / "mesh", "up", *words, path=bare).stderr)
    for words in ([], ["--inventory", "missing.yaml"], ["--inventory", "other.yaml", "--provider", "existing"]):
        assert "systemd-container" not in wanted(run(checkout / "mesh", "up", *words, path=bare).stderr)


def wanted(stderr: str) -> set[str]:
    """Return the packages that are said to be missing."""
    return set(re.findall(r"missing: (\S+) \(", stderr))


APT_GET = """#!/bin/sh
echo "$1" >> {log}
[ "$1" = update ] && [ "$(grep -c update {log})" -lt {until} ] || exit 0
echo 'E: {error}' >&2
exit 100
"""


@pytest.fixture
def apt_get(bare: str, tmp_path: Path) -> Callable[[str, int], list[str]]:
    """Return how to run the script with an apt-get whose first updates fail; that says what it was asked for."""
    (Path(bare) / "env").symlink_to("/usr/bin/env")
    (Path(bare) / "sleep").symlink_to("/bin/true")

    def use(error: str, until: int) -> list[str]:
        log = tmp_path / "asked"
        (Path(bare) / "apt-get").write_text(APT_GET.format(log=log, error=error, until=until))
        (Path(bare) / "apt-get").chmod(0o755)
        run(tmp_path / "a project" / "mesh", "--version", path=bare)
        return log.read_text().split()

    return use


LOCKED = "Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)"


@pytest.mark.parametrize(
    ("error", "until", "updates"),
    [(LOCKED, 4, 4), (LOCKED, 1000, 60), ("Temporary failure resolving", 1000, 1)],
    ids=["for a while", "for 5 minutes", "not when the network fails"],
)
def test_locked_package_lists_are_waited_for(
    apt_get: Callable[[str, int], list[str]], error: str, until: int, updates: int
) -> None:
    assert apt_get(error, until) == [*["update"] * updates, "install"]
