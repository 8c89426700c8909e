"""Leaving: how an Envoy finishes what it has, and lets its clients go first."""

from importlib.resources import files

from envoymesh.wire.lock import WRITER

LEAVE = (files("envoymesh.wire") / "leave.sh").read_text(encoding="utf-8")
"""The bash functions with which an Envoy is left by its clients."""

IDLE_WITHIN_S = 300 + 15 + 1
"""Longer than a front lets a request take to arrive and to be answered (templates/front/lds.yaml.j2, rds.yaml.j2)."""


def idle_script(port: int) -> str:
    """Return the bash text that waits until an Envoy which gets no new requests has answered those that it has.

    Args:
        port: its admin interface's.
    """
    return f"{WRITER}{LEAVE}idle {port:d} {IDLE_WITHIN_S}\nframe end\n"
