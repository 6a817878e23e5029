"""The dated price book."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.context import Content
from models.prices import find_price, price_micros, send_price
from models.rules import Price, PriceBook
from models.sms import measure
from tests.unit.examples import CONTEXT, RUBLE, RULES, at, option, with_message

OLD = Price(channel="sms", start_date=date(2022, 1, 1), price=2 * RUBLE)
NEW = Price(channel="sms", start_date=date(2025, 1, 1), price=5 * RUBLE)
BY_CATEGORY = replace(OLD, category="transactional", price=3 * RUBLE)
BY_COUNTRY = replace(OLD, country="KZ", price=7 * RUBLE)
BY_BOTH = replace(BY_COUNTRY, category="transactional", price=8 * RUBLE)
BOOK = replace(RULES, prices=(OLD, NEW, BY_CATEGORY, BY_COUNTRY, BY_BOTH))


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (date(2021, 12, 31), None),
        (date(2022, 1, 1), OLD),
        (date(2024, 12, 31), OLD),
        (date(2025, 1, 1), NEW),
        (date(9999, 12, 31), NEW),
    ],
)
def test_price_holds_from_its_date(day: date, expected: Price | None) -> None:
    """A line of the price book holds from its own day until the day before a later line of equal scope."""
    assert find_price(BOOK, "sms", "RU", "marketing", day) == expected


def test_narrower_scope_wins_over_later_date() -> None:
    """The narrowest scope holds even where a wider line is newer, and a country is narrower than a category."""
    day = date(2026, 1, 1)

    assert find_price(BOOK, "sms", "RU", "transactional", day) == BY_CATEGORY
    assert find_price(BOOK, "sms", "KZ", "marketing", day) == BY_COUNTRY
    assert find_price(BOOK, "sms", "KZ", "transactional", day) == BY_BOTH
    without_both = replace(BOOK, prices=BOOK.prices[:-1])
    assert find_price(without_both, "sms", "KZ", "transactional", day) == BY_COUNTRY


@given(order=st.permutations(BOOK.prices), day=st.dates(date(2021, 1, 1), date(2027, 1, 1)))
def test_order_of_the_book_does_not_matter(order: list[Price], day: date) -> None:
    """The price that holds does not depend on the order of the lines."""
    shuffled = replace(BOOK, prices=tuple(order))

    assert find_price(shuffled, "sms", "KZ", "transactional", day) == find_price(
        BOOK, "sms", "KZ", "transactional", day
    )


@given(
    book=st.lists(
        st.builds(
            Price,
            channel=st.sampled_from(["sms", "viber"]),
            start_date=st.dates(date(2025, 1, 1), date(2025, 1, 5)),
            price=st.integers(0, 9),
            country=st.sampled_from(["RU", "KZ", "*"]),
            category=st.sampled_from(["marketing", "service", "*"]),
        ),
        max_size=30,
        unique_by=lambda line: (line.channel, line.start_date, line.country, line.category),
    ),
    day=st.dates(date(2024, 12, 31), date(2025, 1, 6)),
)
def test_the_line_that_holds_is_the_one_defined(book: list[Price], day: date) -> None:
    """Of all lines of the channel, country and category that are valid, the one of the narrowest scope holds, of that the latest."""
    valid = [
        line
        for line in book
        if line.channel == "sms"
        and line.start_date <= day
        and line.country in ("KZ", "*")
        and line.category in ("service", "*")
    ]
    expected = max(valid, key=lambda line: (line.country != "*", line.category != "*", line.start_date), default=None)

    assert find_price(replace(RULES, prices=PriceBook(book)), "sms", "KZ", "service", day) == expected


def test_a_rules_file_has_its_lines_at_hand() -> None:
    """The price book of a parsed file is one that need not be read through for each price, and is the file's."""
    assert isinstance(RULES.prices, PriceBook)
    assert [line.channel for line in RULES.prices] == ["sms", "viber"]


def test_channel_without_a_line_has_no_price() -> None:
    """A channel that the book does not name has no price."""
    assert find_price(BOOK, "viber", "RU", "marketing", date(2026, 1, 1)) is None


def test_price_per_segment_is_multiplied_and_price_per_message_is_not() -> None:
    """Segments multiply a price per segment alone."""
    size = measure("я" * 71)

    assert price_micros(replace(OLD, per="segment"), size) == 4 * RUBLE
    assert price_micros(OLD, size) == 2 * RUBLE


def test_free_channel_costs_nothing() -> None:
    """A free channel costs nothing without a line in the book."""
    assert send_price(CONTEXT, RULES, option("push")) == 0


def test_override_holds_over_the_book() -> None:
    """A price override is the price, zero among them, of paid and free channels alike."""
    assert send_price(CONTEXT, RULES, option("sms", price_override_micros=0)) == 0
    assert send_price(CONTEXT, RULES, option("sms", price_override_micros=7)) == 7
    assert send_price(CONTEXT, RULES, option("push", price_override_micros=7)) == 7


def test_content_of_the_channel_sets_its_segments() -> None:
    """A channel with content of its own is billed by that content, the others by the message's."""
    long = Content(size=measure("я" * 135))
    own = replace(option("sms"), content=long)
    context = replace(CONTEXT, options=(own,))

    assert send_price(context, RULES, own) == 3 * 5_300_000
    assert send_price(CONTEXT, RULES, option("sms")) == 5_300_000


def test_send_is_priced_by_category_country_and_day_of_the_decision() -> None:
    """What a send costs is looked up for the customer's country, the message's category and the day of the decision."""
    context = with_message(CONTEXT, category="transactional")
    in_kazakhstan = replace(context, customer=replace(context.customer, country="KZ"))
    in_2022 = at(datetime(2022, 6, 1, tzinfo=UTC))
    before_the_book = at(datetime(2022, 1, 1, tzinfo=UTC) - timedelta(microseconds=1))

    assert send_price(context, BOOK, option("sms")) == 3 * RUBLE
    assert send_price(in_kazakhstan, BOOK, option("sms")) == 8 * RUBLE
    assert send_price(in_2022, BOOK, option("sms")) == 2 * RUBLE
    assert send_price(before_the_book, BOOK, option("sms")) is None
