"""Effects: what a change costs those who are being served."""

from enum import StrEnum


class Effect(StrEnum):
    """What a change does to processes that run, from nothing to worst."""

    NONE = "none"
    HOT = "hot"
    DRAIN = "drain"
    RESTART = "restart"
    STOP = "stop"

    @property
    def severity(self) -> int:
        """How bad it is: 0 for nothing."""
        return list(Effect).index(self)


MEANS = {
    Effect.NONE: "no process that runs is touched",
    Effect.HOT: "Envoy takes it while it serves; no connection is closed for it",
    Effect.DRAIN: "Envoy replaces a listener: its connections are told to end, and closed after 30 s",
    Effect.RESTART: "a process ends and starts anew; requests that it has at that moment can fail",
    Effect.STOP: "a process ends for good",
}
"""Each effect in words; the 30 s are Envoy's drain time (templates/units/envoy.service.j2)."""


def worst(effects: list[Effect]) -> Effect:
    """Return the worst of these effects, NONE if there are none."""
    return max(effects, key=lambda e: e.severity, default=Effect.NONE)
