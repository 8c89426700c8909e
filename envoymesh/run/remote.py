"""Working on one host: a command, its Envoy's admin interface, a shell."""

import re
import string
import subprocess
from contextlib import closing
from urllib.parse import quote

from envoymesh.model.mesh import Host
from envoymesh.model.ports import ADMIN_PORT
from envoymesh.plan.observed import HttpAnswer
from envoymesh.problems import Failed, Problem, did_you_mean
from envoymesh.run.tunnel import Tunnel, forbids_forwarding, forwarding_hint
from envoymesh.run.workspace import Workspace
from envoymesh.transport.openssh import resolve
from envoymesh.transport.ssh import Executed, ssh_command

COMMAND_TIMEOUT_S = 3600.0
"""An hour: what takes longer belongs into `shell`."""


def execute(workspace: Workspace, host: Host, command: str) -> Executed:
    """Run a bash command on `host` as root, without input, and return its exit status and output.

    Raises:
        Failed: the host is out of reach, or the command did not end within an hour.
    """
    with workspace.fleet([host]) as fleet:
        return fleet.session(host.name).exec(command, timeout_s=COMMAND_TIMEOUT_S)


def admin(workspace: Workspace, host: Host, path: str, *, post: bool = False) -> HttpAnswer:
    """Return what the admin interface of the host's Envoy answers with status 200.

    Args:
        workspace: the mesh.
        host: which host.
        path: such as `/stats?filter=membership`; spaces and the like may stand in it as they are.
        post: whether to send a POST, as Envoy asks for where a request changes something.

    Raises:
        Failed: the host is out of reach, nothing answers, or Envoy answers with another status.
    """
    if not path.startswith("/"):
        what = f"`{path}` is no path of the admin interface"
        raise Failed(Problem("task/bad-argument", what, host.name, hint=f"did you mean `/{path}`?"))
    with workspace.fleet([host]) as fleet:
        session = fleet.session(host.name)
        try:
            with closing(Tunnel("localhost", lambda: session.forward("127.0.0.1", ADMIN_PORT))) as tunnel:
                answer = tunnel.ask(quote(path, safe=string.punctuation), "POST" if post else "GET")
        except Failed as failed:
            raise Failed(_no_admin(host, failed)) from failed
    if answer.status != 200:
        raise Failed(_refused(host, path, answer.status, answer.body))
    return HttpAnswer(answer.status, answer.body)


def _no_admin(host: Host, failed: Failed) -> Problem:
    problem = failed.problems[0]
    if problem.code != "ssh/forward":
        return problem
    journal = f"./mesh exec {host.name} \"systemctl status 'envoymesh-*' --no-pager\""
    return Problem(
        code="admin/no-answer",
        what=f"the Envoy of `{host.name}` cannot be asked",
        at=f"{host.name}  127.0.0.1:{ADMIN_PORT}",
        saw=(problem.what, *problem.saw),
        hint=forwarding_hint(host.name) if forbids_forwarding(failed) else journal,
    )


def _refused(host: Host, path: str, status: int, body: str) -> Problem:
    known = re.findall(r"(?m)^  (/[a-z_/]*)", body)
    hint = did_you_mean(path.split("?", maxsplit=1)[0], known) if status == 404 else ""
    if status == 405:
        hint = f"./mesh admin {host.name} '{path}' --post    (this changes something)"
    return Problem(
        code="admin/refused",
        what=f"the Envoy of `{host.name}` answers `{path}` with status {status or 'none'}",
        at=f"{host.name}  127.0.0.1:{ADMIN_PORT}",
        saw=tuple(body.splitlines()[:3]),
        hint=hint or f"./mesh admin {host.name} /help",
    )


def shell(workspace: Workspace, host: Host) -> int:
    """Log in on `host` as root, on this terminal; return the shell's exit status.

    Raises:
        Failed: its machine does not exist, or this box has no OpenSSH.
    """
    login = workspace.fleet([host]).login(host.name)
    become_root = [] if resolve(login).user == "root" else ["-t", "sudo", "-i"]
    try:
        return subprocess.run([*ssh_command(login), *become_root], check=False).returncode
    except FileNotFoundError:
        raise Failed(
            Problem("ssh/no-client", "this box has no `ssh`", host.name, hint="apt-get install openssh-client")
        ) from None
