"""The dated price book: channel x country x message category x SMS segments."""

from datetime import date

from models.context import ChannelOption, Content, Context
from models.rules import Category, Price, PriceBook, Rules
from models.sms import TextSize


def find_price(rules: Rules, channel: str, country: str, category: Category, day: date) -> Price | None:
    """Return the line of the price book that holds; see `PriceBook.find`."""
    return PriceBook.of(rules.prices).find(channel, country, category, day)


def price_micros(price: Price, size: TextSize) -> int:
    """Return what one send of a text of that size costs."""
    return price.price * (size.segments if price.per == "segment" else 1)


def send_price(context: Context, rules: Rules, option: ChannelOption) -> int | None:
    """Return what sending this message through that channel costs in micros; None where the price book has no line for it."""
    message, day = context.message, context.decide_time.date()
    return option_price(rules, option, context.content(option.channel), context.customer.country, message.category, day)


def option_price(
    rules: Rules, option: ChannelOption, content: Content, country: str, category: Category, day: date
) -> int | None:
    """Return what sending this content through that channel costs in micros; None where the price book has no line for it."""
    if option.price_override_micros is not None:
        return option.price_override_micros
    if not rules.channels[option.channel].paid:
        return 0
    line = find_price(rules, option.channel, country, category, day)
    return None if line is None else price_micros(line, content.size)
