"""What a report says, in English and Russian. A text is looked up by its key; what is in braces is filled in.

Numbers are written as readers of the language write them: 1,234.5 or 1 234,5, with spaces that do not break.
"""

import math
from collections.abc import Mapping
from typing import Literal

Language = Literal["en", "ru"]
LANGUAGES: tuple[Language, ...] = ("en", "ru")
_THIN = "\u202f"
_MINUS = "\u2212"
NOTHING = "\u2014"

_TEXTS: Mapping[str, tuple[str, str]] = {
    "title": ("Experiment {name}", "Эксперимент {name}"),
    "subtitle": (
        "{variants}; {begin} to {end}; read as of {until} UTC",
        "{variants}; с {begin} по {end}; данные на {until} UTC",
    ),
    "counted": (
        "{counted} customers whose {days} days are over, of {exposed} exposed",
        "{counted} клиентов, чьи {days} дн. истекли, из {exposed} участников",
    ),
    # --- the decision
    "ship": ("Ship {treated}: {why}.", "Внедряйте {treated}: {why}."),
    "harmful": ("Do not ship {treated}: {why}.", "Не внедряйте {treated}: {why}."),
    "no_effect_shown": (
        "No effect of {treated} is shown yet: {why}.",
        "Эффект {treated} пока не доказан: {why}.",
    ),
    "undecided": ("No verdict on {treated}: {why}.", "Вердикта о {treated} нет: {why}."),
    "success_improved": (
        "{metric} {direction} by {figure} per customer",
        "{metric}: {direction} на {figure} на клиента",
    ),
    "success_improved_ratio": ("{metric} {direction} by {figure}", "{metric}: {direction} на {figure}"),
    "up": ("up", "рост"),
    "down": ("down", "снижение"),
    "success_worse": ("{metric} is worse by {figure} per customer", "{metric} хуже на {figure} на клиента"),
    "success_worse_ratio": ("{metric} is worse by {figure}", "{metric} хуже на {figure}"),
    "success_not_shown": ("{metric} does not differ beyond chance", "{metric} не отличается сильнее случайного"),
    "success_refused": ("{metric} cannot be judged ({problem})", "{metric} оценить нельзя ({problem})"),
    "guardrail_held": ("{metric} is at most {figure} worse", "{metric} хуже не более чем на {figure}"),
    "guardrail_held_better": ("{metric} is better by at least {figure}", "{metric} лучше не менее чем на {figure}"),
    "guardrail_broken": ("{metric} is at least {figure} worse", "{metric} хуже не менее чем на {figure}"),
    "guardrail_not_shown": (
        "{metric} may be up to {figure} worse, more than the {margin} allowed",
        "{metric} может быть хуже на {figure}, допустимо {margin}",
    ),
    "guardrail_not_shown_nan": (
        "{metric} is too rare in the control to bound",
        "{metric} в контроле слишком редко, чтобы оценить границу",
    ),
    "guardrail_refused": ("{metric} cannot be judged yet ({problem})", "{metric} пока оценить нельзя ({problem})"),
    "sample_ratio_mismatch": (
        "customers did not come in the shares set (p = {figure}); find out what loses or adds them first",
        "доли вариантов не те, что заданы (p = {figure}); сначала выясните, где теряются или добавляются клиенты",
    ),
    "sample_ratio_warning": (
        "the shares of variants are unlikely (p = {figure}); look at how customers come in",
        "доли вариантов маловероятны (p = {figure}); проверьте, как приходят клиенты",
    ),
    "too_few_customers": ("too few customers", "мало клиентов"),
    "too_few_events": ("too few events", "мало событий"),
    "no_variance": ("nothing varies", "нет разброса"),
    "too_skewed": ("a few customers decide it", "всё решают единичные клиенты"),
    # --- troubles
    "no_exposures": (
        "no customer of {about} has been watched for the whole window",
        "ни один клиент варианта {about} не прошёл всё окно наблюдения",
    ),
    "allocation_changed": (
        "the weights of variants were changed on {about}, so variants hold customers of different times; start a new experiment",
        "веса вариантов изменены {about}, поэтому в вариантах клиенты разного времени; начните новый эксперимент",
    ),
    "mixed_customers": (
        "{figure} of customers were in two variants before it was known that they are one person; they are left out",
        "{figure} клиентов побывали в двух вариантах, прежде чем выяснилось, что это один человек; они исключены",
    ),
    "bundle_changed": (
        "variant {about} was decided by {figure} bundles, since its alias moved; the figures are of all of them together",
        "вариант {about} обслуживали разные модели ({figure}): алиас сменил версию; цифры — по всем вместе",
    ),
    "was_paused": (
        "it was paused {figure} times; what was decided then counts, which makes effects look smaller",
        "эксперимент ставили на паузу ({figure}); решения того времени учтены, это занижает эффект",
    ),
    "exposure_changed": (
        "the share of customers exposed was changed, to {figure} in the end; variants keep their weights",
        "долю участников меняли, в конце {figure}; веса вариантов прежние",
    ),
    "stopped": ("it was stopped: {about}", "остановлен: {about}"),
    "still_open": (
        "{figure} more customers are still being watched; they count once their window is over",
        "ещё {figure} клиентов под наблюдением; они войдут в отчёт, когда истечёт их окно",
    ),
    "small": (
        "until then a missing effect may be a matter of size",
        "до этого отсутствие эффекта может объясняться размером выборки",
    ),
    # --- first screen
    "success": ("Success metrics", "Метрики успеха"),
    "guardrails": ("Guardrails", "Защитные метрики"),
    "money": ("Money against {control}", "Деньги относительно {control}"),
    "held": ("held", "соблюдена"),
    "broken": ("broken", "нарушена"),
    "open": ("not shown yet", "ещё не доказана"),
    "better": ("better", "лучше"),
    "worse": ("worse", "хуже"),
    "unclear": ("not shown", "не доказано"),
    "lift": ("{lift} ({low} to {high})", "{lift} (от {low} до {high})"),
    "points": ("{value}\u00a0pp", "{value}\u00a0п.п."),
    "from_to": ("{low} to {high}", "от {low} до {high}"),
    "means": ("{treated} against {control}", "{treated} против {control}"),
    "margin_allowed": ("{margin} worse is tolerated", "допустимо ухудшение на {margin}"),
    "saved": ("paid spend saved", "экономия на платных каналах"),
    "earned": ("net value earned", "прирост чистой ценности"),
    "overspent": ("more paid spend", "больше платных расходов"),
    "lost": ("net value lost", "потеря чистой ценности"),
    "for_exposed": ("over the {count} customers of {treated}", "на {count} клиентов варианта {treated}"),
    "ratio_good": ("Shares of variants are as set (p = {p})", "Доли вариантов — как заданы (p = {p})"),
    "ratio_bad": ("Shares of variants are NOT as set (p = {p})", "Доли вариантов НЕ такие, как заданы (p = {p})"),
    "ratio_odd": ("Shares of variants are unlikely (p = {p})", "Доли вариантов маловероятны (p = {p})"),
    "size": (
        "Planned: {needed} customers for a lift of {effect} with {power} power; {counted} counted, which show a lift of {detectable}",
        "План: {needed} клиентов для эффекта {effect} с мощностью {power}; учтено {counted}, видно эффект {detectable}",
    ),
    "size_unknown": (
        "How many customers are needed cannot be told yet: too little is known of the control",
        "Сколько нужно клиентов, пока не сказать: о контроле известно слишком мало",
    ),
    "notes": ("Read this too", "Обратите внимание"),
    # --- below
    "cumulative": ("Difference of {metric}, cumulative", "Разница: {metric}, накопленно"),
    "cumulative_note": (
        "The band holds at every day at once ({share}): look as often as you like. It is cut where it is widest.",
        "Полоса верна сразу для всех дней ({share}): смотреть можно сколь угодно часто. Самые широкие места обрезаны.",
    ),
    "day_of_experiment": ("day of the experiment", "день эксперимента"),
    "per_customer": ("{unit} per customer", "{unit} на клиента"),
    "by_variant": ("Figures by variant", "Показатели по вариантам"),
    "figure": ("figure", "показатель"),
    "lift_head": ("lift, {share} interval", "эффект, интервал {share}"),
    "p_head": ("p", "p"),
    "kpi_note": (
        "The decision rests on the marked metrics alone, with intervals that hold at every look and Holm's correction. The others are at one look, p after "
        "Benjamini–Hochberg; take them as hints. {nothing}: nothing may be concluded, or there is nothing to divide.",
        "Решение опирается только на отмеченные метрики: интервалы верны при любом числе проверок, поправка Холма. Остальные — для одной проверки, p после "
        "Бенджамини–Хохберга; считайте их подсказками. {nothing}: вывод невозможен или не на что делить.",
    ),
    "daily": ("Customers exposed by day", "Новые участники по дням"),
    "customers": ("customers", "клиенты"),
    "by_exposure_day": ("{metric} by day of first exposure", "{metric} по дню первого участия"),
    "by_exposure_day_note": (
        "Each day's new customers over their whole window. Days differ by chance; a variant that leads on a few days only is worth a second look.",
        "Новые участники каждого дня за всё их окно. Дни различаются случайно; если вариант впереди лишь в отдельные дни, присмотритесь.",
    ),
    "segments": ("{metric} by segment", "{metric} по сегментам"),
    "segments_note": (
        "Difference per customer at one look; p after Benjamini–Hochberg over all segments. Segments suggest the next experiment, they do not decide this one.",
        "Разница на клиента, одна проверка; p после Бенджамини–Хохберга по всем сегментам. Сегменты подсказывают следующий эксперимент, но не решают этот.",
    ),
    "segment_shown": ("coloured: adjusted p below {alpha}", "цветом: скорректированное p ниже {alpha}"),
    "journey_stage": ("stage", "этап"),
    "kind": ("kind", "вид"),
    "customer_value": ("value before", "ценность до"),
    "zone": ("zone", "зона"),
    "none": ("none", "нет"),
    "lower": ("lower half", "нижняя половина"),
    "upper": ("upper half", "верхняя половина"),
    "mix": ("Messages by channel, per 1,000 customers", "Сообщения по каналам, на 1 000 клиентов"),
    "funnel": ("What became of cascades with a paid step", "Что стало с каскадами, где был платный шаг"),
    "funnel_planned": (
        "cascades that had planned a paid step after a free one",
        "каскадов с платным шагом после бесплатного",
    ),
    "funnel_ordered": ("of them ordered before the paid step", "из них заказ до платного шага"),
    "funnel_clicked": ("clicked before it, so that it was not sent", "клик до него, и он не отправлен"),
    "funnel_paid": ("paid step sent", "платный шаг отправлен"),
    "funnel_other": ("ended otherwise without it", "иначе закончились без него"),
    "funnel_saved": ("paid messages not sent", "платных сообщений не отправлено"),
    "time": ("Customers who ordered, by days since the first exposure", "Доля заказавших по дням с первого участия"),
    "days_since": ("days since the first exposure", "дни с первого участия"),
    "share_ordered": ("share who ordered", "доля заказавших"),
    "novelty": (
        "Difference of net value, day by day after the exposure",
        "Разница чистой ценности по дням после начала участия",
    ),
    "novelty_note": (
        "Each point is one day, not cumulative. The first days hold the message with which customers came in; among the later ones an effect that shrinks is novelty, and "
        "one that stays is what a rollout will bring.",
        "Каждая точка — один день, не накопленно. В первых днях — сообщение, с которым клиент вошёл в эксперимент; среди следующих эффект, который тает, — новизна, а "
        "тот, что держится, останется и после внедрения.",
    ),
    "roles": ("Channels in orders that came after a message", "Роли каналов в заказах после сообщения"),
    "roles_note": (
        "Credit divides each order's margin evenly among the channels that had contacted the customer before it (Shapley value). It counts orders that would have come "
        "anyway, so it says who was there, not what a channel causes: that is the difference between variants above.",
        "Вклад делит маржу заказа поровну между каналами, которые контактировали с клиентом до него (вектор Шепли). Сюда входят и заказы, которые были бы и так: "
        "это «кто присутствовал», а не «что вызвал канал» — это показывает разница вариантов выше.",
    ),
    "channel": ("channel", "канал"),
    "first": ("first", "первый"),
    "assisting": ("assisting", "помогал"),
    "last": ("last", "последний"),
    "credit": ("credit", "вклад"),
    "credited_orders": ("orders credited", "заказов засчитано"),
    "goals": ("Goals", "Цели"),
    "goal": ("goal", "цель"),
    "goal_from": ("baseline", "база"),
    "goal_due": ("due by now", "план на сегодня"),
    "goal_now": ("now", "сейчас"),
    "goal_target": ("target", "цель на конец"),
    "on_track": ("on track", "по плану"),
    "behind": ("behind", "отстаёт"),
    "reached": ("reached", "достигнута"),
    "too_early": ("no checkpoint yet", "проверки ещё не было"),
    "no_data": ("nothing to divide", "нет данных"),
    "goals_note": (
        "Goals are of all customers, not of a variant: they say whether a figure moves, not why.",
        "Цели — по всем клиентам, не по варианту: они говорят, меняется ли показатель, но не почему.",
    ),
    "changes": ("Changed while it ran", "Изменения по ходу"),
    "versions": ("Data and versions", "Данные и версии"),
    "method": ("How it is worked out", "Как это посчитано"),
    "method_text": (
        "Every customer counts from the first decision that exposed them, in that variant, for {days} days, whatever they were sent (intention to treat). Customers of two variants "
        "({mixed}) and of windows that are still open ({open}) are left out. Success metrics and guardrails: always-valid intervals at {share} (asymptotic confidence sequences, Waudby-Smith "
        "et al. 2021); ratios by the delta method; {cuped}. Rule: at least one success metric improves (Holm) and every guardrail is "
        "non-inferior within its margin. Net value: margin of all orders less returns, cost of messages and {harm} for each customer who unsubscribes.",
        "Клиент учитывается с первого решения, в котором он попал в вариант, {days} дн., что бы ему ни отправляли (intention to treat). Исключены клиенты двух вариантов "
        "({mixed}) и те, чьё окно ещё не истекло ({open}). Метрики успеха и защитные: интервалы, верные при любом числе проверок, {share} (асимптотические доверительные последовательности, Waudby-Smith "
        "и др. 2021); отношения — дельта-метод; {cuped}. Правило: хотя бы одна метрика успеха улучшилась (Холм) и каждая защитная не хуже в пределах "
        "допуска. Чистая ценность: маржа всех заказов за вычетом возвратов, цены сообщений и {harm} за каждого отписавшегося.",
    ),
    "cuped_on": (
        "what customers did before was used to reduce noise (CUPED)",
        "шум снижен по поведению до эксперимента (CUPED)",
    ),
    "cuped_off": ("no CUPED, since the log holds nothing of before", "без CUPED: в журнале нет данных до эксперимента"),
    "formula": ("formula", "формула"),
    "log": ("log", "журнал"),
    "rules": ("rules", "правила"),
    "bundles": ("bundles of {variant}", "модели {variant}"),
    "policies": ("policies of {variant}", "политики {variant}"),
    "no_bundle": ("none", "нет"),
    "decisions": ("{count} decisions", "{count} решений"),
    "customers_of": ("{count} customers", "{count} клиентов"),
}

_KPIS: Mapping[str, tuple[str, str, str, str]] = {
    "net_value": (
        "net value",
        "чистая ценность",
        "margin − cost of messages − harm of unsubscribing",
        "маржа − цена сообщений − ущерб от отписок",
    ),
    "margin": (
        "margin",
        "маржа",
        "margin of orders and shop purchases − returns",
        "маржа заказов и покупок в магазине − возвраты",
    ),
    "revenue": (
        "revenue",
        "выручка",
        "paid for orders and shop purchases − returned",
        "оплата заказов и покупок − возвраты",
    ),
    "orders": ("orders", "заказы", "orders and shop purchases per customer", "заказы и покупки на клиента"),
    "conversion": ("conversion", "конверсия", "customers who ordered ÷ customers", "заказавшие ÷ клиенты"),
    "average_order": (
        "average order value",
        "средний чек",
        "revenue ÷ orders that told it",
        "выручка ÷ заказы с известной суммой",
    ),
    "purchase_frequency": (
        "purchase frequency",
        "частота покупок",
        "orders ÷ customers who ordered",
        "заказы ÷ заказавшие",
    ),
    "spend": ("spend on messages", "расходы на сообщения", "what sent messages cost", "цена отправленных сообщений"),
    "messages": ("messages", "сообщения", "messages sent per customer", "отправлено на клиента"),
    "paid_messages": (
        "paid messages",
        "платные сообщения",
        "messages through paid channels per customer",
        "платных сообщений на клиента",
    ),
    "cost_per_order": ("cost per order", "цена заказа", "spend ÷ orders", "расходы ÷ заказы"),
    "unsubscribe_rate": (
        "unsubscribe rate",
        "доля отписок",
        "customers who unsubscribed ÷ customers",
        "отписавшиеся ÷ клиенты",
    ),
    "complaint_rate": (
        "complaint rate",
        "доля жалоб",
        "customers who complained ÷ customers",
        "пожаловавшиеся ÷ клиенты",
    ),
    "retention": (
        "retention",
        "удержание",
        "active in the second half of the window ÷ customers",
        "активные во второй половине окна ÷ клиенты",
    ),
    "churn": ("churn", "отток", "1 − retention", "1 − удержание"),
    "lifetime_value": (
        "lifetime value",
        "пожизненная ценность (LTV)",
        "margin of a window ÷ churn of a window, if it stayed so",
        "маржа за окно ÷ отток за окно, если так и останется",
    ),
    "match_rate": (
        "match rate",
        "доля узнанных (match rate)",
        "customers known by two identities or more ÷ customers",
        "клиенты с двумя и более идентификаторами ÷ клиенты",
    ),
    "store_purchases": (
        "shop purchases",
        "покупки в магазине",
        "shop purchases per customer",
        "покупки в магазине на клиента",
    ),
    "store_conversion": (
        "shop purchase after a message (ROPO)",
        "покупка в магазине после сообщения (ROPO)",
        "bought in a shop after a message ÷ customers contacted",
        "купившие в магазине после сообщения ÷ получившие сообщения",
    ),
    "multi_channel_share": (
        "multi-channel buyers",
        "мультиканальные покупатели",
        "bought online and in a shop ÷ customers who ordered",
        "купившие и онлайн, и в магазине ÷ заказавшие",
    ),
    "cross_channel_conversion": (
        "cross-channel conversion",
        "кросс-канальная конверсия",
        "saw or clicked in one channel, then ordered after another or in a shop ÷ customers who saw or clicked",
        "увидели в одном канале, заказали после другого или в магазине ÷ увидевшие",
    ),
    "returns": ("returns", "возвраты", "orders that came back per customer", "возвращённые заказы на клиента"),
    "csat": ("CSAT", "CSAT", "sum of scores ÷ answers, 1 to 5", "сумма оценок ÷ ответы, от 1 до 5"),
    "nps": ("NPS", "NPS", "(scores of 9–10 − scores of 0–6) ÷ answers", "(оценки 9–10 − оценки 0–6) ÷ ответы"),
}


def say(language: Language, key: str, **values: object) -> str:
    """Return the text of a key with its values filled in."""
    return _TEXTS[key][LANGUAGES.index(language)].format(**values)


def kpi_name(language: Language, metric: str) -> str:
    """Return what a metric is called."""
    return _KPIS[metric][LANGUAGES.index(language)]


def kpi_formula(language: Language, metric: str) -> str:
    """Return how a metric is worked out."""
    return _KPIS[metric][2 + LANGUAGES.index(language)]


def number(language: Language, value: float, decimals: int = 0, *, signed: bool = False) -> str:
    """Return a number as the language writes it."""
    if not math.isfinite(value):
        return NOTHING
    text = f"{abs(value):,.{decimals}f}"
    if language == "ru":
        text = text.replace(",", _THIN).replace(".", ",")
    is_zero = not text.strip("0.,")
    sign = "" if is_zero else _MINUS if value < 0 else "+" if signed else ""
    return sign + text


def percent(language: Language, share: float, *, signed: bool = False, decimals: int | None = None) -> str:
    """Return a share in per cent."""
    if not math.isfinite(share):
        return NOTHING
    places = decimals
    if places is None:
        is_whole = abs(100 * share - round(100 * share)) < 1e-9
        places = 0 if is_whole or abs(share) >= 1 else 1 if abs(share) >= 0.01 else 2
    return number(language, 100 * share, places, signed=signed) + ("%" if language == "en" else f"{_THIN}%")


def p_text(language: Language, p: float) -> str:
    """Return a p-value, the smallest as a bound."""
    if not math.isfinite(p):
        return NOTHING
    return "<" + _THIN + number(language, 0.001, 3) if p < 0.001 else number(language, p, 3 if p < 0.1 else 2)
