"""Frames: how scripts on a host say what they saw and did, whatever else a login prints around it.

A frame is one line: the record separator (ASCII 30), `EM`, a kind and fields, separated by single spaces.
Fields that can hold anything are base64.
"""

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MARK = "\x1eEM "


@dataclass(frozen=True)
class Frame:
    """One line from a host: its kind and its fields."""

    kind: str
    fields: tuple[str, ...]

    def data(self, index: int) -> bytes:
        """Return the base64 field at `index`, decoded; an absent field is empty."""
        return base64.b64decode(self.fields[index]) if index < len(self.fields) else b""

    def text(self, index: int) -> str:
        """Return the base64 field at `index` as text."""
        return self.data(index).decode(errors="replace")

    def line(self, index: int) -> str:
        """Return the fields from `index` on as the text that they were: one line."""
        return " ".join(self.fields[index:])


def frame_from(line: str) -> Frame | None:
    """Return the frame in `line`, or None when the line is not one."""
    if not line.startswith(MARK):
        return None
    kind, *fields = line[len(MARK) :].rstrip("\r\n").split(" ")
    return Frame(kind, tuple(fields))


def frames_from(lines: Iterable[str]) -> Iterator[Frame]:
    """Yield the frames among `lines`."""
    return (frame for frame in map(frame_from, lines) if frame is not None)
