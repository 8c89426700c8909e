"""The gate of a rollout: whom the fronts find healthy, and for how long."""

from collections.abc import Iterator, Sequence

import pytest

from envoymesh.model.mesh import HostName
from envoymesh.run.health import HEALTHY_FOR_S, SETTLED_WITHIN_S, Ailments, settled

WEB = HostName("web")


class Clock:
    """A clock that goes on by what is slept and by what each question takes; the last answer is given for ever."""

    def __init__(self, *answers: str, takes_s: float = 0.1) -> None:
        self.now, self._answers, self._takes_s = 0.0, self._forever(answers), takes_s

    @staticmethod
    def _forever(answers: Sequence[str]) -> Iterator[str]:
        yield from answers
        while True:
            yield answers[-1]

    def _ask(self) -> Ailments:
        self.now += self._takes_s
        return {WEB: next(self._answers)}

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def settled(self) -> Ailments:
        return settled(self._ask, lambda: self.now, self._sleep)


def test_a_host_that_is_healthy_for_long_enough_is_well() -> None:
    clock = Clock("")
    assert clock.settled() == {}
    assert HEALTHY_FOR_S <= clock.now < HEALTHY_FOR_S + 1


@pytest.mark.parametrize("answers", [("ill", "ill", ""), ("", "front-envoy did not answer", "")])
def test_a_host_that_recovers_has_to_stay_so_and_no_answer_is_no_word_of_health(answers: Sequence[str]) -> None:
    clock = Clock(*answers)
    assert clock.settled() == {}
    assert clock.now > HEALTHY_FOR_S + 1


@pytest.mark.parametrize("answers", [("ill",), ("",) * 5 + ("ill",), ("", "ill") * 100])
def test_a_host_that_is_ill_to_the_end_is_told_with_the_reason(answers: Sequence[str]) -> None:
    clock = Clock(*answers)
    assert clock.settled() == {WEB: "ill"}
    assert SETTLED_WITHIN_S < clock.now < SETTLED_WITHIN_S + 2


def test_an_answer_is_as_old_as_its_question() -> None:
    clock = Clock("", "ill", takes_s=10)
    assert clock.settled() == {WEB: "ill"}, "one answer that took ten seconds says nothing of these"
