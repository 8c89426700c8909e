"""Reboot: what a host is told, and what it says."""

from datetime import UTC, datetime

from envoymesh.model.ports import ADMIN_PORT
from envoymesh.plan.generation import Run
from envoymesh.wire.reboot import reboot_script, reboots

RUN = Run(datetime(2026, 1, 31, 9, 45, 2, tzinfo=UTC), "20260131T094502Z-3fa9", "me@box", "it's time")


def test_a_reboot_is_one_call_whose_words_are_never_syntax() -> None:
    call = reboot_script(RUN, ADMIN_PORT, 10, 316).splitlines()[-1]
    assert call.startswith(f"reboot {RUN.name} {ADMIN_PORT} 10 316 ")
    assert "it'\"'\"'s time" in call


def test_a_host_boots_when_it_says_so_and_not_when_its_lock_is_lost() -> None:
    assert reboots(["noise", "\x1eEM end reboots"])
    assert not reboots(["\x1eEM end lost"])
    assert not reboots([])
