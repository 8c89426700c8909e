"""What a load came to, from what its clients logged."""

import math

import pytest

from tests.figures import Sample, figures, longest_gap, p99
from tests.load import logged, sliced, written_out

BODY = "Hello from behind Envoy (service 1)! hostname: service1-# resolvedhostname: 10.81.0.#\n"
GOOD = "Hello from behind Envoy (service 1)! hostname: service1-2 resolvedhostname: 10.81.0.22\n"


def test_what_failed_is_told_by_client_and_kind() -> None:
    clients = {"a": [Sample(1, 0.1), Sample(2, 0.1, "503")], "b": [Sample(1, 0.1, "503"), Sample(2, 0.1, "503")]}
    seen = figures(clients, 0, 9)
    assert seen.failed == {"a: 503": 1, "b: 503": 2}
    assert (seen.sent, seen.lost) == (4, 3)


def test_a_gap_is_of_one_kind_of_client_whatever_the_others_got() -> None:
    steady, broken = [Sample(t / 10, 0) for t in range(100)], [Sample(1, 0.5), Sample(2, 0, "503"), Sample(5, 0.25)]
    assert figures({"steady": steady, "broken": broken}, 0, 9).longest_gap_s == 3.75


def test_it_is_disturbed_from_the_first_failed_request_to_the_end_of_the_last() -> None:
    samples = [Sample(1, 0), Sample(2, 3, "504"), Sample(4, 15, "504"), Sample(30, 0)]
    assert figures({"a": samples}, 0, 9).disturbed_s == 17
    assert figures({"a": [Sample(1, 0)]}, 0, 9).disturbed_s == 0


def test_latency_is_told_before_during_and_after_the_operation_by_when_requests_were_due() -> None:
    samples = [Sample(1, 0.1), Sample(5, 9.0), Sample(6, 0.2, "503"), Sample(8, 0.3)]
    assert figures({"a": samples}, 4, 7).p99_s == (0.1, 9.0, 0.3)


@pytest.mark.parametrize(("values", "expected"), [(range(1, 101), 99), (range(1, 11), 10), ([7], 7)])
def test_of_a_hundred_one_may_be_slower(values: list[int], expected: int) -> None:
    assert p99(values) == expected


def test_nothing_has_no_latency_and_an_endless_gap() -> None:
    assert math.isnan(p99([]))
    assert longest_gap([1.0]) == math.inf
    assert longest_gap([5, 1, 2]) == 3


def test_a_log_tells_when_each_request_was_due_what_it_took_and_what_was_wrong() -> None:
    assert list(logged("2000000 500000 \n3000000 1 503\n")) == [Sample(2, 0.5), Sample(3, 1e-6, "503")]


def test_of_what_curl_wrote_only_the_whole_body_with_its_status_and_protocol_is_good() -> None:
    written = f"{GOOD}=200 2 0.01\n{GOOD[:-9]}=200 2 0.01\n=000 0 0.5\ngone=503 2 0.01\n{GOOD}=200 1.1 0.01\n"
    found = list(written_out(written, BODY, 100, 0.04))
    assert [sample.kind for sample in found] == ["", "body", "000", "503", "1.1"]
    assert [round(sample.at, 2) for sample in found] == [100, 100.04, 100.08, 100.58, 100.62]


SUMMARY = "100.5\nstarting benchmark...\ntraffic: 1.2KB (1250) total, 1.0KB (1000) headers, 250B ({}) data\n"


def test_a_request_that_h2load_logs_no_answer_to_is_lost() -> None:
    log = "101000000\t200\t5000\n102000000\t503\t7000\n"
    found = list(sliced(log, SUMMARY.format(90), count=3, length=90))
    assert found == [Sample(101, 0.005), Sample(102, 0.007, "503"), Sample(100.5, 0, "no answer")]


def test_bodies_of_another_length_are_seen() -> None:
    log = "101000000\t200\t5000\n"
    assert [s.kind for s in sliced(log, SUMMARY.format(90), count=1, length=90)] == [""]
    assert [s.kind for s in sliced(log, SUMMARY.format(80), count=1, length=90)] == ["", "body"]
