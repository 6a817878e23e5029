"""Calls that are decided in one round get what each would have got alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from models.context import Mode, Verdict
from models.errors import AlreadyExists, ChannelChoiceError
from models.rules import parse_rules
from service.decisions import Answer
from service.requests import ChooseRequest, Person
from tests.training.examples import RULES_TOML, InProcess, ask, in_process

ONE_A_DAY = '\n[[caps]]\nname = "daily"\nlimit = 1\nwindow_hours = 24\n'
RULES = parse_rules(RULES_TOML + ONE_A_DAY)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[InProcess]:
    """The use cases over an empty database, with a cap of one message a day."""
    with in_process(tmp_path, RULES) as found:
        yield found


def in_a_round(service: InProcess, requests: Sequence[ChooseRequest]) -> list[Answer | ChannelChoiceError]:
    """Decide requests as calls that waited together are."""
    return service.decisions.choose_round(requests)


def verdicts(answers: Sequence[Answer | ChannelChoiceError]) -> list[Verdict]:
    """Return what was decided; raise what was refused."""
    found = []
    for answer in answers:
        if isinstance(answer, ChannelChoiceError):
            raise answer
        found.append(answer.decision.choice.verdict)
    return found


def told(answer: Answer) -> tuple[object, ...]:
    """Return what an answer says, with the chances of all actions."""
    decision = answer.decision
    assert decision.distribution is not None
    return (
        answer.request_id,
        answer.trainable,
        decision.context,
        decision.choice,
        decision.distribution.probabilities.tolist(),
    )


def known_as(request: ChooseRequest, *identities: tuple[str, str]) -> ChooseRequest:
    """Return a request of somebody with these identities."""
    return replace(request, person=Person(identities=identities, time_zone="Europe/Moscow"))


def test_people_of_a_round_get_what_each_gets_alone(service: InProcess, tmp_path: Path) -> None:
    """The answers of a round about different people, in every mode, are those of calls one after another on a database of their own."""
    modes = (Mode.LIVE, Mode.DRY_RUN, Mode.SHADOW)
    requests = [ask(f"r-{number}", customer=f"c-{number}", mode=modes[number % 3]) for number in range(12)]
    (tmp_path / "alone").mkdir()
    with in_process(tmp_path / "alone", RULES) as other:
        alone = [other.decisions.choose(request) for request in requests]

    assert [answer.decision.choice.verdict for answer in alone] == [Verdict.SEND] * 12
    together = in_a_round(service, requests)
    assert all(isinstance(answer, Answer) for answer in together)
    assert [told(answer) for answer in together if isinstance(answer, Answer)] == [told(answer) for answer in alone]


def test_live_calls_of_a_round_for_one_person_see_each_other(service: InProcess) -> None:
    """Of LIVE calls of a round for one person, new or known, by one identity or another, the cap grants one; DRY_RUN and other people are not kept from sending."""
    joining = known_as(ask("join", mode=Mode.SHADOW), ("customer", "known"), ("email", "known@example.org"))
    service.decisions.choose(joining)
    new = [known_as(ask(f"new-{number}"), ("customer", "new"), ("email", "new@example.org")) for number in range(2)]
    known = [
        known_as(ask("known-1"), ("email", "known@example.org")),
        known_as(ask("known-2"), ("customer", "known")),
    ]
    dry = known_as(ask("dry", mode=Mode.DRY_RUN), ("customer", "known"))
    found = verdicts(in_a_round(service, [new[0], dry, known[0], ask("other"), known[1], new[1]]))

    assert found[1] == found[3] == Verdict.SEND
    assert [found[0], found[5]].count(Verdict.SEND) == 1
    assert [found[2], found[4]].count(Verdict.SEND) == 1


def test_a_new_person_under_joined_identities_is_one(service: InProcess) -> None:
    """Calls of a round that name a new person by an e-mail, by a customer's id and by both leave one person, to whom one message is sent."""
    names = (("email", "x@example.org"), ("customer", "x"))
    requests = [
        known_as(ask("both"), *names),
        known_as(ask("by-email"), names[0]),
        known_as(ask("by-id"), names[1]),
        ask("other"),
    ]
    found = verdicts(in_a_round(service, requests))

    assert found[:3].count(Verdict.SEND) == 1
    assert found[3] == Verdict.SEND
    keys = {
        service.decisions.choose(
            replace(request, request_id=f"{request.request_id}-2", mode=Mode.DRY_RUN)
        ).decision.context.customer.key
        for request in requests[:3]
    }
    assert len(keys) == 1


def test_one_id_twice_in_a_round_is_one_decision(service: InProcess) -> None:
    """A call repeated within a round is answered by the one decision, and one with that id and another body is refused, alone."""
    first, other = ask("same"), ask("other", customer="boris")
    answers = in_a_round(service, [first, first, replace(first, body=b"another"), other])
    decided = [answer for answer in answers if isinstance(answer, Answer)]

    assert len(decided) == 3
    assert decided[0].decision.context.decision_id == decided[1].decision.context.decision_id
    assert sorted(answer.is_replayed for answer in decided) == [False, False, True]
    assert isinstance(answers[2], AlreadyExists)
