"""What `check` and `status` tell: findings, each proven or not, and the state of each host. Data only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from envoymesh.model.mesh import ServiceName
from envoymesh.problems import ExitCode


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what it is about: a host's name, or an address of the operator's box.
        ok: whether it is as it must be.
        what: one line, what is so or what is wrong.
        saw: evidence, where it is wrong.
        hint: the next command, where it is wrong.
        exit_code: what it counts as where it is wrong.
    """

    subject: str
    ok: bool
    what: str
    saw: str = ""
    hint: str = ""
    exit_code: ExitCode = ExitCode.PROBLEM


_GRAVITY = (ExitCode.PROBLEM, ExitCode.UNREACHABLE, ExitCode.DRIFT)


def exit_code_of_findings(findings: Sequence[Finding]) -> ExitCode:
    """Return what `check` exits with: that of the gravest finding, 1 before 4 before 2.

    What does not work is worse than what could not be looked at, and that is worse than what works
    although it is not as the inventory says.
    """
    found = {f.exit_code for f in findings if not f.ok}
    return next((code for code in _GRAVITY if code in found), ExitCode.DONE)


class State(StrEnum):
    """How a host is, the worst first."""

    UNREACHABLE = "unreachable"
    DEGRADED = "degraded"
    DRIFTED = "drifted"
    OK = "ok"


@dataclass(frozen=True)
class HostStatus:
    """One host of the inventory, as it was read.

    Attributes:
        host: its name.
        role: `edge`, or its service.
        address: its mesh address.
        state: all of the below in one word.
        units: systemd's word for each unit (`active`, `failed`, …), by name.
        version: of the Envoy that runs; empty when none answers.
        envoy: its state, such as `LIVE`; empty when none answers.
        synced: whether it runs what its xDS files say; None when none answers.
        members: on an edge, healthy and all members of each service as its front sees them.
        seen_by: of a service host, how many fronts hold it for healthy, and how many were asked; else None.
        certificate_days: whole days that an edge's certificate is still valid; else None.
        notes: what is not as it must be, in words.
    """

    host: str
    role: str
    address: str
    state: State
    units: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    envoy: str = ""
    synced: bool | None = None
    members: Mapping[ServiceName, tuple[int, int]] = field(default_factory=dict)
    seen_by: tuple[int, int] | None = None
    certificate_days: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def reachable(self) -> bool:
        """Whether it could be read."""
        return self.state is not State.UNREACHABLE
