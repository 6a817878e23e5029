"""One person across identities: finding, creating, merging, and what is known of them."""

import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from models.context import Contact, CustomerState, latest_hours
from models.errors import NotFound, StoreUnavailable
from models.record import from_micros, to_micros
from models.rules import Rules
from service.clock import Clock
from service.learning import learn_merge
from service.ledger import Ledger
from service.requests import Person, UpsertRequest
from service.store.identity import Keys
from service.store.profile import Profile
from service.store.store import ENGAGED, History, Reader, Since, Store, Unit, person_locks

T = TypeVar("T")
_CONTACT_MEMORY = timedelta(days=60)
"""How long features look back; caps look back as far as their windows reach."""
ORDER_MEMORY = timedelta(days=365)
ACTIVITY_MEMORY = timedelta(days=180)
MOST_ACTIVITY = 400
_STRIPES = 4096
_KEY_BYTES = 16
_ATTEMPTS = 30


class PersonChanged(Exception):
    """Raised in a unit of work when a person was changed, by another process, since they were read; read them and do it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The person behind some identities: their key, what is stored of them, and which identities are new."""

    key: str
    new_hashes: tuple[bytes, ...]
    moment: datetime
    """When they were read."""
    history: History

    @property
    def profile(self) -> Profile:
        return Profile() if self.history.customer is None else self.history.customer.profile

    @property
    def version(self) -> int | None:
        """The version of everything that is known of them; None where they are new."""
        return None if self.history.customer is None else self.history.customer.version

    @property
    def locks(self) -> list[int]:
        """The locks under which what is decided about them is kept."""
        return person_locks([self.key], self.new_hashes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """How often a person was asked for, how often one of their identities was known before, how many profiles were merged into others, and how many of those
    contradicted what they were merged into."""

    persons: int = 0
    matched: int = 0
    merged: int = 0
    contradicting: int = 0


class Customers:
    """Use cases about customers, and the locks under which one person's decisions are made one at a time."""

    def __init__(self, store: Store, rules: Rules, clock: Clock, keys: Keys, ledger: Ledger) -> None:
        self._store = store
        self._holder = ledger.holder if rules.budgets else None
        self._rules = rules
        self._clock = clock
        self._keys = keys
        self._contact_memory = contact_memory(rules)
        self._identity_locks = [threading.Lock() for _ in range(_STRIPES)]
        self._person_locks = [threading.Lock() for _ in range(_STRIPES)]
        self._matches = Matches()
        self._count_lock = threading.Lock()

    def hashes(self, person: Person) -> tuple[bytes, ...]:
        """Return the keyed hashes of a person's identities."""
        return tuple(h for kind, value in person.identities for h in self._keys.hashes(kind, value))

    def group(self, people: Sequence[Person]) -> list[list[int]]:
        """Return the places of those who are one person by their identities and by what is stored, in the order of the first of each."""
        if len(people) < 2:
            return [[place] for place in range(len(people))]
        hashes = [self.hashes(person) for person in people]
        keys = self._store.read(lambda reader: reader.find_identities({h for of_one in hashes for h in of_one}))
        leader: dict[bytes | str, bytes | str] = {}

        def lead(label: bytes | str) -> bytes | str:
            while (above := leader.setdefault(label, label)) != label:
                label = above
            return label

        for of_one in hashes:
            labels: list[bytes | str] = [*of_one, *(keys[h] for h in of_one if h in keys)]
            for label in labels:
                leader[lead(label)] = lead(of_one[0])
        groups: dict[bytes | str, list[int]] = {}
        for place, of_one in enumerate(hashes):
            groups.setdefault(lead(of_one[0]), []).append(place)
        return list(groups.values())

    @contextmanager
    def hold(self, hashes: Sequence[bytes], *, is_merging: bool = True) -> Iterator[Resolved]:
        """Resolve identities to one person and keep that person for this thread until the block ends.

        Locks are taken in one order, identities before persons, so that no two threads wait for each other.
        """
        with ExitStack() as held:
            for stripe in _identity_stripes(hashes):
                held.enter_context(self._identity_locks[stripe])
            while True:
                keys = self._store.read(lambda reader: reader.find_identities(hashes))
                found = sorted(set(keys.values()))
                with ExitStack() as locks:
                    for stripe in sorted({_stripe(key) for key in found or [_first_key(hashes)]}):
                        locks.enter_context(self._person_locks[stripe])
                    # One person who was merged into another meanwhile is missed below, where their history is read.
                    if len(found) == 1 or self._store.read(lambda reader: reader.find_identities(hashes)) == keys:
                        held.enter_context(locks.pop_all())
                        break
            key = found[0] if found else _first_key(hashes)
            contradicting = 0
            if len(found) > 1 and is_merging:
                now = to_micros(self._clock.now())
                key, contradicting = self._store.write(lambda unit: merge(unit, found, now), person_locks(found))
            new = tuple(dict.fromkeys(h for h in hashes if h not in keys))
            person = self._resolved(key, new)
            if found and person.version is None and self._store.read(lambda r: r.find_identities(hashes)) != keys:
                raise PersonChanged  # merged into another just before they were read
            self._count(bool(found), len(found) - 1 if is_merging else 0, contradicting)
            yield person

    @contextmanager
    def hold_each(self, people: Sequence[Sequence[bytes]]) -> Iterator[list[Resolved | None]]:
        """Resolve the identities of several people at one moment, and keep them all for this thread until the block ends.

        None stands for those whose identities lead to several persons, or who are changed by another process just now: they are to be held one by one.
        Locks are taken in the order of `hold`.
        """
        asked = {h for hashes in people for h in hashes}

        def find(reader: Reader) -> dict[bytes, str]:
            return reader.find_identities(asked)

        with ExitStack() as held:
            for stripe in _identity_stripes(asked):
                held.enter_context(self._identity_locks[stripe])
            known = again = self._store.read(find)
            found = [list(dict.fromkeys(known[h] for h in hashes if h in known)) for hashes in people]
            keys = [of_one[0] if of_one else _first_key(hashes) for of_one, hashes in zip(found, people, strict=True)]
            for stripe in sorted({_stripe(key) for key in keys}):
                held.enter_context(self._person_locks[stripe])
            if not all(found):
                again = self._store.read(find)
            now, since = self._since()
            histories = self._store.read(
                lambda reader: reader.find_histories(keys, since, to_micros(now), self._holder)
            )
            resolved: list[Resolved | None] = []
            for hashes, of_one, key, history in zip(people, found, keys, histories, strict=True):
                is_missed = bool(of_one) == (history.customer is None)  # merged into another, or made, just before
                if len(of_one) > 1 or is_missed or any(known.get(h) != again.get(h) for h in hashes):
                    resolved.append(None)
                    continue
                new = tuple(dict.fromkeys(h for h in hashes if h not in known))
                self._count(bool(of_one), 0, 0)
                resolved.append(Resolved(key=key, new_hashes=new, moment=now, history=history))
            yield resolved

    @property
    def matches(self) -> Matches:
        """How identities were resolved since the start."""
        with self._count_lock:
            return self._matches

    def _count(self, is_matched: bool, merged: int, contradicting: int) -> None:
        with self._count_lock:
            known = self._matches
            self._matches = Matches(
                persons=known.persons + 1,
                matched=known.matched + is_matched,
                merged=known.merged + max(merged, 0),
                contradicting=known.contradicting + contradicting,
            )

    @contextmanager
    def hold_owner(self, decision_id: str) -> Iterator[Resolved]:
        """Keep the person that a decision was for, for this thread until the block ends.

        Raises
        ------
        NotFound: there is no such decision.
        """
        while True:
            key = self._store.read(lambda reader: reader.find_owner(decision_id))
            if key is None:
                raise NotFound("decision", decision_id)
            with self._person_locks[_stripe(key)]:
                person = self._resolved(key, ())
                if self._store.read(lambda reader: reader.find_owner(decision_id)) == key:
                    yield person
                    return

    def _resolved(self, key: str, new_hashes: tuple[bytes, ...]) -> Resolved:
        now, since = self._since()
        history = self._store.read(lambda reader: reader.find_history(key, since, to_micros(now), self._holder))
        return Resolved(key=key, new_hashes=new_hashes, moment=now, history=history)

    def _since(self) -> tuple[datetime, Since]:
        """Return the moment, and how far back from it a history goes."""
        now = self._clock.now()
        since = Since(
            contacts_after=to_micros(now - self._contact_memory),
            orders_after=to_micros(now - ORDER_MEMORY),
            activity_after=to_micros(now - ACTIVITY_MEMORY),
            most=MOST_ACTIVITY,
        )
        return now, since

    def upsert(self, request: UpsertRequest) -> str:
        """Store what is known of a customer and return their key."""
        now = to_micros(self._clock.now())

        def attempt() -> str:
            with self.hold(self.hashes(request.person)) as person:

                def unit(work: Unit) -> None:
                    keep_person(work, person, now)
                    work.update_profile(person.key, person.profile.updated(request.profile), now)

                self._store.write(unit, person.locks)
                return person.key

        return until_unchanged(attempt)

    def get(self, person: Person) -> tuple[str, Profile, int]:
        """Return a customer's key, profile and number of identities.

        Raises
        ------
        NotFound: no identity of theirs is known.
        """
        hashes = self.hashes(person)

        def question(reader: Reader) -> tuple[str, Profile, int]:
            keys = sorted(set(reader.find_identities(hashes).values()))
            if not keys:
                raise NotFound("customer", "with these identities")
            return keys[0], reader.find_profile(keys[0]) or Profile(), reader.count_identities(keys[0])

        return self._store.read(question)

    def erase(self, person: Person) -> int:
        """Delete a person and take out of the log what tells of them; return how many rows were deleted or changed, 0 where nobody is known.

        People whom the identities lead to are merged first, so that all of them are erased.
        """
        hashes = self.hashes(person)

        def attempt() -> int:
            with self.hold(hashes) as found:
                version = found.version
                if version is None:
                    return 0

                def unit(work: Unit) -> int:
                    if not work.claim_customer(found.key, version):
                        raise PersonChanged
                    return work.erase_customer(found.key, secrets.token_hex(_KEY_BYTES))

                return self._store.write(unit, found.locks)

        count = until_unchanged(attempt)
        self._store.scrub()
        return count

    def state(self, known: Resolved, person: Person | None) -> CustomerState:
        """Return what a decision needs to know of a person; what the request says goes over what is stored."""
        profile, done = known.profile, known.history.activity
        seen, clicked = first_times(done, ENGAGED), first_times(done, ("clicked",))
        return CustomerState(
            key=known.key,
            time_zone=(person and person.time_zone) or profile.time_zone or self._rules.time_zone,
            country=(person and person.country) or profile.country or self._rules.country,
            locale=(person and person.locale) or profile.locale,
            contacts=tuple(
                Contact(
                    decision_id=row.decision_id,
                    channel=row.channel,
                    topic=row.topic,
                    category=row.category,  # type: ignore[arg-type]  # written from a Category
                    start=from_micros(row.start_time),
                    end=from_micros(row.end_time),
                    step=row.step,
                    seen_time=seen.get((row.decision_id, row.step)),
                    click_time=clicked.get((row.decision_id, row.step)),
                )
                for row in known.history.contacts
            ),
            order_times=tuple(map(from_micros, known.history.orders)),
            active_hours=latest_hours(from_micros(moment) for _, moment, _, _ in done),
        )


def until_unchanged(attempt: Callable[[], T]) -> T:
    """Do something about a person, again while another process changes them meanwhile.

    Raises
    ------
    StoreUnavailable: others keep changing them.
    """
    for _ in range(_ATTEMPTS):
        try:
            return attempt()
        except PersonChanged:
            continue
    raise StoreUnavailable("other processes keep changing this customer; try again")


def keep_person(unit: Unit, person: Resolved, moment: int) -> None:
    """Write down a person who is new, and identities that are; mark one who is known as changed.

    Raises
    ------
    PersonChanged: they are not any more as they were read.
    """
    if person.version is None:
        is_kept = unit.insert_customer(person.key, person.profile, moment)
    else:
        is_kept = unit.claim_customer(person.key, person.version)
    if not is_kept or not unit.insert_identities(person.key, person.new_hashes):
        raise PersonChanged


def merge(unit: Unit, keys: Sequence[str], moment: int) -> tuple[str, int]:
    """Merge several people into the one known longest; return their key, and how many of the others contradicted that one.

    Raises
    ------
    PersonChanged: one of them was merged into another meanwhile.
    """
    created = {key: unit.find_create_time(key) for key in keys}
    if None in created.values():
        raise PersonChanged
    winner = min(keys, key=lambda key: (created[key], key))
    losers = [key for key in keys if key != winner]
    profile = unit.find_profile(winner) or Profile()
    contradicting = sum(profile.contradicts(unit.find_profile(loser) or Profile()) for loser in losers)
    learn_merge(unit, keys)
    unit.merge_customers(winner, losers, moment)
    return winner, contradicting


def contact_memory(rules: Rules) -> timedelta:
    """Return how far back contacts are known when a decision is made: as far as features look and caps reach."""
    windows = [cap.window for cap in (*rules.caps, rules.topic_cap) if cap is not None]
    slip = max(channel.slip for channel in rules.channels.values())
    return max([_CONTACT_MEMORY, *(window + slip for window in windows)])


def first_times(done: Sequence[tuple[str, int, str, int]], types: Sequence[str]) -> dict[tuple[str, int], datetime]:
    """Return when each send, by decision and step, was first followed by one of these types; `done` begins with the newest."""
    return {(decision, step): from_micros(moment) for kind, moment, decision, step in done if kind in types}


def _first_key(hashes: Sequence[bytes]) -> str:
    """Return the key of a person seen for the first time: from their first identity, so that it is the same everywhere."""
    return hashes[0].hex()[:32]


def _identity_stripes(hashes: Iterable[bytes]) -> list[int]:
    """Return the stripes of identities in the order in which their locks are taken."""
    return sorted({int.from_bytes(h[:4]) % _STRIPES for h in hashes})


def _stripe(key: str) -> int:
    return int(key[:8], 16) % _STRIPES
