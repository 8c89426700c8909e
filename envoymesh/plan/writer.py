"""Who changes a host now, and who has changed it: the lock, and the lines of the audit log."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Lock:
    """The lock of a host: the run that has it, who and why, since when and until when at most by the host's clock."""

    run: str
    who: str
    why: str
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Entry:
    """A line of a host's audit log.

    `at` is by the host's clock. `what` is `apply`, `take-back`, `reboot` or `lock release`; `ending` is how an apply
    says that it ended, `done` for a reboot, `released` for a lock.
    """

    at: datetime
    what: str
    ending: str
    run: str
    who: str
    why: str
    changes: tuple[str, ...]
