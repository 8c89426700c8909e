"""Effects: what a change costs those who are being served."""

from enum import StrEnum


class Effect(StrEnum):
    """What a change does to processes that run, from nothing to worst."""

    NONE = "none"
    HOT = "hot"
    DRAIN = "drain"
    HOT_RESTART = "hot restart"
    RESTART = "restart"
    STOP = "stop"

    @property
    def severity(self) -> int:
        """How bad it is: 0 for nothing."""
        return list(Effect).index(self)
