"""The report: tables for the terminal and for docs/benchmarks.md. What is put together here fits 100 columns."""

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.cases import OURS, Bar, Result
from benchmarks.samples import Series, ratio

INTRODUCTION = """\
# Benchmarks

`./mesh bench` measures all of this in one run and writes this file. Ratios within one run mean
something; the seconds are those of one box, on which tool and hosts share the processors.

{box}.
"""

METHOD = """\
## How it is measured

- All contestants work on the same systemd-nspawn hosts (a real systemd and sshd each) over SSH, and
  are started in the same network namespace. No packet leaves the box.
- A time is that of the whole process, from its start to its end, connections included: none is left
  open from one run to the next. The floor is a whole Python process as well; its line "without
  start" is the same runs without the start of Python and its imports.
- Contestants take turns, and each round begins with another. Before the first round, each runs once
  unmeasured, unless its hosts are made anew for every run. A run counts only if the tool says that
  it did what it was to do: "4 unchanged", "changed=0" four times, a grand total without changes.
- The peers are set up as their experts would: Ansible with pipelining, a ControlPersist connection,
  no facts, 50 forks and the free strategy; pyinfra with all hosts in parallel and `--no-wait`. What
  they run is in `benchmarks/ansible/` and `benchmarks/pyinfra/`, they themselves are pinned in
  `benchmarks/requirements.txt`.
"""


def figure(value: float, unit: str) -> str:
    """Return a figure with three digits, and its unit: `0.71 s`, `22.0 s`, `104 MiB`."""
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"


def terminal(results: Sequence[Result]) -> str:
    """Return the tables for a terminal."""
    return "\n\n".join(_terminal(result) for result in results) + "\n"


def _terminal(result: Result) -> str:
    bars = [_bar_row(bar) for bar in result.bars]
    return "\n".join([result.case.title.replace("`", ""), *_columns(*_table(result)), "", *_columns(BAR_HEAD, bars)])


def _table(result: Result) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return head and rows of what was measured."""
    if result.case.table:
        head, rows = result.case.table
        return head, rows(result.measured)
    return TIME_HEAD, [_time_row(result, name, series) for name, series in result.measured.items()]


TIME_HEAD = (f"{OURS} is", "contestant", "median", "min", "max", "runs")
BAR_HEAD = ("measured", "must reach", "", "")


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows))
    return [f"  {line}".rstrip() for line in lines]


def _time_row(result: Result, name: str, series: Series) -> tuple[str, ...]:
    spread = (figure(x, series.unit) for x in (series.median, series.least, series.most))
    return _relation(result.measured, name, series), name, *spread, str(len(series.values))


def _relation(measured: Mapping[str, Series], name: str, series: Series) -> str:
    """Return how the tool compares: `6.2 times faster`, `1.8 times that`; nothing where it is not compared."""
    ours = measured.get(OURS)
    if ours is None or name.startswith(OURS) or series.unit != ours.unit:
        return ""
    times = series.median / ours.median
    return f"{ratio(times, ' times')} faster" if times >= 1 else f"{ratio(1 / times, ' times')} that"


def _bar_row(bar: Bar) -> tuple[str, ...]:
    sign = "≥" if bar.at_least else "≤"
    return ratio(bar.measured, bar.unit), f"{sign} {bar.limit:g}{bar.unit}", bar.what, "met" if bar.met else "not met"


def document(results: Sequence[Result], box: str, notes: Mapping[str, str]) -> str:
    """Return docs/benchmarks.md.

    Args:
        results: what was measured, of every case.
        box: what it was measured on.
        notes: by case, what stands in the way where a bar is not met.
    """
    summary = [(result.case.title, *_bar_row(bar)) for result in results for bar in result.bars]
    parts = [
        INTRODUCTION.format(box=box),
        _markdown(("case", "measured", "must reach", "of what", ""), summary),
        METHOD,
        *(_section(result, notes.get(result.case.name, "")) for result in results),
    ]
    return "\n".join(parts)


def _section(result: Result, note: str) -> str:
    title = result.case.title
    text = f"## {title[0].upper()}{title[1:]}\n\n{filled(result.case.how)}\n\n{_markdown(*_table(result))}"
    return f"{text}\n{note.strip()}\n" if note else text


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def filled(text: str) -> str:
    """Return text in lines of at most 100 columns."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + 1 + len(word) > 100:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)
