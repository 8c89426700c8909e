"""What `check` found: text for people, JSON for programs."""

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from envoymesh.findings import Finding, exit_code_of_findings
from envoymesh.problems import ExitCode

WIDTH = 100
_WORDS = {ExitCode.PROBLEM: "FAIL", ExitCode.DRIFT: "DRIFT", ExitCode.UNREACHABLE: "AWAY"}


def check_text(findings: Sequence[Finding]) -> str:
    """Return a line for each finding, those that fail last and with what was seen and the next command, then a count.

    Lines are at most 100 columns wide; hints are never broken, so that they can be pasted.
    """
    ordered = sorted(findings, key=lambda f: not f.ok)
    width = max((len(f.subject) for f in findings), default=0)
    return "\n".join([*(line for f in ordered for line in _lines(f, width)), summary(findings)])


def _lines(finding: Finding, subject_width: int) -> list[str]:
    word = "ok" if finding.ok else _WORDS[finding.exit_code]
    lines = _wrapped(f"{word:<6}{finding.subject:<{subject_width}}  ", finding.what)
    if not finding.ok:
        lines += _wrapped("      saw   ", finding.saw) if finding.saw else []
        lines += [f"      hint  {finding.hint}"] if finding.hint else []
    return lines


def _wrapped(first: str, text: str) -> list[str]:
    inner = " " * len(first)
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=inner, break_on_hyphens=False, break_long_words=False
    )


def summary(findings: Sequence[Finding]) -> str:
    """Return `29 findings, all ok`, or how many of them are not, and how."""
    failed = [f for f in findings if not f.ok]
    if not failed:
        return f"{len(findings)} findings, all ok"
    counts = ((word, sum(f.exit_code is code for f in failed)) for code, word in _WORDS.items())
    return f"{len(findings)} findings, {', '.join(f'{count} {word}' for word, count in counts if count)}"


def check_json(findings: Sequence[Finding]) -> str:
    """Return the findings as one JSON document; fields are only ever added to it.

    `version` 1, `exit_code` of the whole, and `findings`: `subject`, `ok`, `what`, `saw`, `hint`, and
    `exit_code`, what the finding counts as (0 where it is ok).
    """
    document = {
        "version": 1,
        "exit_code": int(exit_code_of_findings(findings)),
        "findings": [_finding(f) for f in findings],
    }
    return json.dumps(document, indent=2)


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "subject": finding.subject,
        "ok": finding.ok,
        "what": finding.what,
        "saw": finding.saw,
        "hint": finding.hint,
        "exit_code": 0 if finding.ok else int(finding.exit_code),
    }
