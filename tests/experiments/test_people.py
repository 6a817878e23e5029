"""What is read of the customers of an experiment, against a record that was kept beside the log."""

from datetime import timedelta

import numpy as np
import pytest

from models.errors import LogUnusable
from models.rules import parse_rules
from service.requests import AdvanceRequest
from tests.experiments.shop import CONTROL, RULES, TREATED, Shop
from tests.service.served import MovedClock
from tests.training.examples import DAY, NOW, RULES_TOML, ask, closing, happened, in_process, run_sql
from tests.training.examples import write as write_log
from training.experiments.people import HOLDOUT, PROGRAMME, holdout_experiment, read_people


@pytest.mark.parametrize("place", [0, 1])
def test_figures_are_those_of_the_record(shop: Shop, place: int) -> None:
    """Orders, margin, revenue, messages, spend and unsubscribes of each variant are what happened within the windows, no more."""
    people = read_people(shop.url, shop.experiment, shop.rules)
    variant = (CONTROL, TREATED)[place]
    mask = people.mask(place)

    assert int(mask.sum()) == len(shop.closed(variant))
    found = {name: float(people.figures[name][mask].sum()) for name in people.figures}
    for name in ("orders", "margin", "spend", "messages"):
        assert found[name] == pytest.approx(sum(getattr(kept, name) for kept in shop.closed(variant)))
    assert found["unsubscribed"] == sum(kept.unsubscribed for kept in shop.closed(variant))
    assert found["revenue"] == pytest.approx(3 * found["margin"])
    assert found["net"] == pytest.approx(found["margin"] - found["spend"] - 100 * found["unsubscribed"])
    before = float(people.before["margin"][mask].sum())
    assert before == pytest.approx(sum(kept.before for kept in shop.closed(variant)))
    assert before > 0


def test_everyone_exposed_is_counted_once(shop: Shop) -> None:
    """Customers whose window is open are exposed and not in the figures; those who are held out are in neither."""
    people = read_people(shop.url, shop.experiment, shop.rules)

    for variant in (CONTROL, TREATED):
        assert people.exposed[variant] == sum(kept.variant == variant for kept in shop.kept.values())
        assert int(people.daily[variant].sum()) == people.exposed[variant]
    assert people.open_windows == sum(people.exposed.values()) - len(people.variant)
    assert 0 < sum(not kept.variant for kept in shop.kept.values()) < len(shop.kept) / 2
    assert people.mixed == 0


def test_an_earlier_look_sees_what_was_known_then(shop: Shop) -> None:
    """Read as of a day in the middle, the report has only customers and windows of until then."""
    people = read_people(shop.url, shop.experiment, shop.rules, NOW + 12 * DAY)

    assert sum(people.exposed.values()) == sum(bool(kept.variant) and kept.day <= 12 for kept in shop.kept.values())
    assert len(people.variant) == sum(bool(kept.variant) and kept.day + 7 <= 12 for kept in shop.kept.values())
    assert np.all(np.diff(people.window_end) >= 0)


def test_customers_of_two_variants_are_left_out(own_shop: Shop) -> None:
    """Who was exposed to both, before anybody knew, is counted as mixed and nowhere else."""
    whole = read_people(own_shop.url, own_shop.experiment, own_shop.rules)
    run_sql(
        own_shop.url,
        "UPDATE exposures SET is_mixed = 1 WHERE customer_key IN (SELECT min(customer_key) FROM exposures)",
    )

    people = read_people(own_shop.url, own_shop.experiment, own_shop.rules)
    assert people.mixed == 1
    assert sum(people.exposed.values()) == sum(whole.exposed.values()) - 1


def test_the_holdout_is_an_experiment_of_its_own(shop: Shop) -> None:
    """Held-out customers against all others who were to get marketing, by the share that the rules set."""
    holdout = holdout_experiment(shop.rules, 7.0, NOW - DAY, NOW + 60 * DAY)
    people = read_people(shop.url, holdout, shop.rules)

    held = sum(not kept.variant for kept in shop.kept.values())
    assert people.exposed == {HOLDOUT: held, PROGRAMME: len(shop.kept) - held}
    assert people.figures["messages"][people.mask(0)].sum() == 0
    assert people.figures["messages"][people.mask(1)].sum() > 0


def test_a_holdout_that_the_rules_do_not_have_is_refused() -> None:
    """Without a share held out there is nothing to report."""
    with pytest.raises(LogUnusable, match=r"holdout\.share"):
        holdout_experiment(parse_rules(RULES_TOML), 7.0, NOW, NOW + DAY)


def test_an_experiment_without_exposures_says_what_to_check(log_url: str) -> None:
    """A log with decisions of before, or an empty one, is refused with the way out."""
    with pytest.raises(LogUnusable, match="is empty"):
        read_people(log_url, RULES.experiments[0], RULES)
    write_log(log_url, [closing()])
    with pytest.raises(LogUnusable, match="start_time, exposure and eligibility"):
        read_people(log_url, RULES.experiments[0], RULES)


def test_a_variant_that_the_rules_lost_is_named(own_shop: Shop) -> None:
    """Where the log has a variant that the file has not, the report says which file it wants."""
    run_sql(own_shop.url, "UPDATE exposures SET variant = 'third' WHERE variant = ?", TREATED)

    with pytest.raises(LogUnusable, match="variant third of order, which the rules file does not have"):
        read_people(own_shop.url, own_shop.experiment, own_shop.rules)


def test_outcomes_after_a_stop_count(tmp_path: object, own_shop: Shop) -> None:
    """An experiment that was stopped gets its late outcomes like any other: what happened in a window counts."""
    run_sql(own_shop.url, "INSERT INTO experiments VALUES ('order', 'stopped', NULL)")
    whole = read_people(own_shop.url, own_shop.experiment, own_shop.rules)
    key, begin = run_sql(own_shop.url, "SELECT customer_key, expose_time FROM exposures ORDER BY expose_time LIMIT 1")[
        0
    ]
    columns = "event_id, digest, decision_id, step, customer_key, type, occur_time, receive_time, status, value_micros, machine_generated"
    run_sql(
        own_shop.url,
        f"INSERT INTO outcomes ({columns}) VALUES ('x', x'', '', 0, ?, 'order', ?, ?, 'accepted', 5000000, 0)",
        key,
        int(str(begin)) + 1,
        int(str(begin)) + 3_600_000_000,
    )

    people = read_people(own_shop.url, own_shop.experiment, own_shop.rules)
    assert people.figures["margin"].sum() == pytest.approx(whole.figures["margin"].sum() + 5)


def test_cascades_are_followed_to_their_end(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of cascades with a paid step after a free one it is told which ended by an order or a click before it, and which paid."""
    text = RULES_TOML + (
        '[[experiments]]\nname = "e"\nstart_time = 2026-11-01T00:00:00Z\nend_time = 2027-03-01T00:00:00Z\nwindow_days = 7\n'
        '[[experiments.variants]]\nname = "a"\nweight = 0.5\n[[experiments.variants]]\nname = "b"\nweight = 0.5\n'
    )
    rules = parse_rules(text)
    clock = MovedClock()
    with in_process(tmp_path_factory.mktemp("cascades"), rules, clock=clock) as service:
        ids = {}
        for name in ("orders", "clicks", "pays", "waits"):
            answer = service.decisions.choose(ask(name, customer=name, channels=["push", "sms"]))
            ids[name] = answer.decision.context.decision_id
            assert [step.channel for step in answer.decision.choice.steps] == ["push", "sms"]
        hour = timedelta(hours=1)
        service.outcomes.report(
            [
                happened("o", "order", NOW + hour, decision_id=ids["orders"]),
                happened("c", "clicked", NOW + hour, decision_id=ids["clicks"]),
            ]
        )
        clock.move(6 * hour)
        for name in ("orders", "clicks", "pays"):
            service.decisions.advance(AdvanceRequest(decision_id=ids[name], completed_step=1, channels=()))
        clock.move(9 * DAY)
        service.decisions.choose(ask("last", customer="last"))
        people = read_people(service.url, rules.experiments[0], rules)

    def total(name: str) -> int:
        return sum(getattr(funnel, name) for funnel in people.funnels)

    assert (total("planned"), total("ordered_before"), total("clicked_before"), total("paid_sent")) == (4, 1, 1, 1)
