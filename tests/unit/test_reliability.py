"""The page on reliability, from what the tests under load wrote."""

import json

from benchmarks.reliability import document, read, table

RUN = {
    "part": "Planned work",
    "name": "scale_up",
    "bound": "0",
    "sent": 20000,
    "failed": {},
    "longest_gap_s": 0.25,
    "disturbed_s": 0,
    "p99_s": [0.01, 0.02, 0.03],
    "took_s": 3.0,
}


def written(*changes: dict[str, object]) -> str:
    return "".join(json.dumps({**RUN, **change}) + "\n" for change in changes)


def test_an_operation_is_one_line_with_all_requests_the_longest_gap_and_median_latencies() -> None:
    runs = read(written({}, {"longest_gap_s": 1.5, "p99_s": [0.03, 0.02, 0.01]}, {"p99_s": [0.02, 0.02, 0.02]}))
    assert table(runs).splitlines()[2:] == ["| scale up | 3 | 60,000 | 0 | 0 | 1.5 s | 20 ms | 20 ms | 20 ms |"]


def test_what_failed_is_told_for_each_run_so_that_a_bad_one_is_not_hidden() -> None:
    runs = read(written({}, {"failed": {"a: 503": 3, "b: 503": 4}}))
    assert " | 0, 7 | " in table(runs)


def test_the_page_has_a_table_for_each_part_and_ends_with_why() -> None:
    runs = read(written({}, {"part": "What breaks", "name": "application_hung", "bound": "16, for 30 s"}))
    page = document(runs, "A box", "## Why\n")
    assert page.index("## Planned work") < page.index("| scale up |") < page.index("## What breaks")
    assert "| application hung | 1 | 20,000 | 0 | 16, for 30 s |" in page
    assert "A box." in page
    assert page.endswith("## Why\n")
