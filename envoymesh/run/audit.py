"""Audit: what was changed on hosts or tried, as each host has noted it."""

from collections.abc import Mapping, Sequence

from envoymesh.model.mesh import Host, HostName
from envoymesh.plan.writer import Entry
from envoymesh.problems import Failed, Problem
from envoymesh.run.workspace import Workspace
from envoymesh.wire.audit import audit_script, entries_from

TIMEOUT_S = 30.0

Log = tuple[tuple[Entry, ...], int]
"""The last lines of a host's log, oldest first, and how many of them are damaged."""


def audit(workspace: Workspace, hosts: Sequence[Host], last: int) -> Mapping[HostName, Log | Problem]:
    """Return the last lines of the hosts' audit logs, all read at once.

    Raises:
        Failed: `last` is below one.
    """
    if last < 1:
        what = f"`{last}` lines cannot be shown"
        raise Failed(Problem("task/bad-argument", what, "audit --last", hint="./mesh audit --last 50"))
    with workspace.fleet(hosts) as fleet:

        def work(host: HostName) -> Log:
            executed = fleet.session(host).exec(audit_script(last), timeout_s=TIMEOUT_S)
            return entries_from(host, executed.stdout.decode(errors="replace").split("\n"))

        return fleet.each([h.name for h in hosts], work)
