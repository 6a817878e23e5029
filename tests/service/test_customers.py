"""CustomerService: what is stored of customers, and how it meets what requests say."""

import json

import grpc
import pytest

from service.gen.channelchoice.v1.customer_pb2 import (
    CONSENT_STATE_DENIED,
    CONSENT_STATE_GRANTED,
    REACHABILITY_REACHABLE,
    REACHABILITY_UNREACHABLE,
    ConsentState,
    Customer,
    CustomerRef,
)
from service.gen.channelchoice.v1.customer_service_pb2 import (
    GetCustomerRequest,
    GetCustomerResponse,
    UpsertCustomersRequest,
    UpsertCustomersResponse,
)
from tests.service.examples import DAY, HOUR, NIGHT, NOW, choose_request, identity, moment_of, stamp
from tests.service.served import Served, refused
from tests.service.test_choose import reasons

pytestmark = pytest.mark.usefixtures("engine")


def upsert(service: Served, *customers: Customer) -> UpsertCustomersResponse:
    return service.customers.UpsertCustomers(UpsertCustomersRequest(customers=customers))


def get(service: Served, ref: CustomerRef) -> GetCustomerResponse:
    return service.customers.GetCustomer(GetCustomerRequest(customer=ref))


def consenting(state: "ConsentState.ValueType", channel: str = "push", hours: int = 0) -> Customer:
    customer = Customer(customer=CustomerRef(customer_id="customer-1"))
    customer.consents.add(channel=channel, state=state, evidence="form 1", consent_time=stamp(NOW + hours * HOUR))
    return customer


def test_what_is_stored_is_read_back(service: Served) -> None:
    """GetCustomer answers all that was stored, and the number of identities instead of the identities."""
    customer = Customer(
        customer=CustomerRef(time_zone="Asia/Omsk", locale="ru-RU", country="KZ"),
    )
    customer.customer.features["age"].number = 41.5
    customer.customer.features["tier"].text = "gold"
    customer.customer.features["app"].flag = False
    customer.consents.add(
        channel="email", state=CONSENT_STATE_GRANTED, evidence="form 1", consent_time=stamp(NOW - DAY)
    )
    customer.consents.add(channel="sms", state=CONSENT_STATE_DENIED, consent_time=stamp(NOW - DAY))
    customer.reachability.add(channel="push", state=REACHABILITY_REACHABLE)
    customer.reachability.add(channel="viber", state=REACHABILITY_UNREACHABLE)
    sent = Customer()
    sent.CopyFrom(customer)
    sent.customer.customer_id = "customer-1"
    sent.customer.identities.append(identity("mail"))

    (result,) = upsert(service, sent).results
    found = get(service, CustomerRef(identities=[identity("mail")]))

    assert found.customer == customer
    assert found.profile_id == result.profile_id
    assert found.identity_count == 2


def test_fields_left_empty_keep_their_stored_values(service: Served) -> None:
    """A second upsert adds to the first and replaces only what it says."""
    first = Customer(customer=CustomerRef(customer_id="customer-1", time_zone="Asia/Omsk", locale="ru-RU"))
    first.customer.features["kept"].number = 1
    first.customer.features["changed"].number = 1
    second = Customer(customer=CustomerRef(customer_id="customer-1", locale="en-GB"))
    second.customer.features["changed"].number = 2
    upsert(service, first)
    upsert(service, second)

    found = get(service, CustomerRef(customer_id="customer-1")).customer.customer

    assert (found.time_zone, found.locale) == ("Asia/Omsk", "en-GB")
    assert {name: value.number for name, value in found.features.items()} == {"kept": 1, "changed": 2}


def test_each_customer_of_a_call_has_its_own_result(service: Served) -> None:
    """A malformed customer does not keep its neighbours from being stored."""
    people = [Customer(customer=CustomerRef(customer_id=f"c{number}")) for number in range(3)]
    people[1].customer.time_zone = "Nowhere"

    results = upsert(service, *people).results

    assert [bool(result.profile_id) for result in results] == [True, False, True]
    assert [result.HasField("error") for result in results] == [False, True, False]


def test_a_stored_denial_wins_over_a_request_that_says_granted(service: Served) -> None:
    """Consent law: what the customer withdrew no caller can give back in a request."""
    upsert(service, consenting(CONSENT_STATE_DENIED))

    assert reasons(service.decide(choose_request(channels=["push"]))) == {"push": {"NO_CONSENT"}}


def test_a_stored_consent_holds_where_the_request_is_silent(service: Served) -> None:
    """A request that says nothing of consent goes by the profile; one that says DENIED goes by itself."""
    upsert(service, consenting(CONSENT_STATE_GRANTED))
    silent = choose_request("silent", channels=["push"])
    silent.channels[0].ClearField("consent")
    denying = choose_request("denying", channels=["push"])
    denying.channels[0].consent = CONSENT_STATE_DENIED

    assert service.decide(silent).channel == "push"
    assert reasons(service.decide(denying)) == {"push": {"NO_CONSENT"}}


def test_of_two_consents_the_later_said_holds(service: Served) -> None:
    """An older consent that is told late does not undo a newer withdrawal."""
    service.clock.move(DAY)
    upsert(service, consenting(CONSENT_STATE_DENIED, hours=2))
    upsert(service, consenting(CONSENT_STATE_GRANTED, hours=1))

    (said,) = get(service, CustomerRef(customer_id="customer-1")).customer.consents

    assert said.state == CONSENT_STATE_DENIED


def test_a_consent_from_a_fast_clock_does_not_outlive_a_withdrawal(service: Served) -> None:
    """A consent dated hours ahead is stored as said now, so that a withdrawal a minute later holds."""
    upsert(service, consenting(CONSENT_STATE_GRANTED, hours=20))
    service.clock.move(HOUR)
    withdrawn = consenting(CONSENT_STATE_DENIED)
    withdrawn.consents[0].ClearField("consent_time")
    upsert(service, withdrawn)

    (said,) = get(service, CustomerRef(customer_id="customer-1")).customer.consents

    assert said.state == CONSENT_STATE_DENIED


def test_stored_reachability_holds_where_the_request_is_silent(service: Served) -> None:
    """A channel that does not reach the customer is left out; a request that knows better goes over it."""
    customer = Customer(customer=CustomerRef(customer_id="customer-1"))
    customer.reachability.add(channel="push", state=REACHABILITY_UNREACHABLE)
    upsert(service, customer)
    knowing = choose_request("knowing", channels=["push"])
    knowing.channels[0].reachability = REACHABILITY_REACHABLE

    assert reasons(service.decide(choose_request("silent", channels=["push"]))) == {"push": {"UNREACHABLE"}}
    assert service.decide(knowing).channel == "push"


def test_the_stored_zone_holds_where_the_request_is_silent(service: Served) -> None:
    """It is the profile's night that counts, unless the request says where the customer is now."""
    upsert(service, Customer(customer=CustomerRef(customer_id="customer-1", time_zone="America/New_York")))
    service.clock.moment = NIGHT
    in_moscow = choose_request("moscow", channels=["push"])
    in_moscow.customer.time_zone = "Europe/Moscow"

    assert moment_of(service.decide(choose_request("silent", channels=["push"])).send_time) == NIGHT
    assert moment_of(service.decide(in_moscow).send_time) == NIGHT + 10 * HOUR


def test_features_of_the_request_go_over_the_customers_and_those_over_stored_ones(service: Served) -> None:
    """The log holds the features as used: request over customer over profile."""
    stored = Customer(customer=CustomerRef(customer_id="customer-1"))
    for name in ("a", "b", "c"):
        stored.customer.features[name].number = 1
    upsert(service, stored)
    request = choose_request()
    for name in ("b", "c"):
        request.customer.features[name].number = 2
    request.features["c"].number = 3

    service.decide(request)

    ((features,),) = service.rows("SELECT features FROM decisions")
    known = json.loads(features)
    assert [known[f"x.{name}"] for name in ("a", "b", "c")] == [1.0, 2.0, 3.0]


def test_a_merge_adds_up_what_is_known(service: Served) -> None:
    """A merged profile has the older person's values, the younger one's where there are none, and every denial."""
    old = Customer(customer=CustomerRef(customer_id="old", time_zone="Asia/Omsk"))
    young = Customer(customer=CustomerRef(customer_id="young", time_zone="Asia/Tokyo", locale="ja-JP"))
    old.consents.add(channel="push", state=CONSENT_STATE_GRANTED, evidence="form")
    young.consents.add(channel="push", state=CONSENT_STATE_DENIED, consent_time=stamp(NOW + HOUR))
    upsert(service, old)
    service.clock.move(HOUR)
    upsert(service, young)

    for customer in ("young", "old"):
        upsert(service, Customer(customer=CustomerRef(customer_id=customer, identities=[identity("m")])))
    found = get(service, CustomerRef(customer_id="young")).customer

    assert (found.customer.time_zone, found.customer.locale) == ("Asia/Omsk", "ja-JP")
    assert found.consents[0].state == CONSENT_STATE_DENIED


def test_an_unknown_customer_is_not_found(service: Served) -> None:
    """GetCustomer of a stranger answers NOT_FOUND without repeating who was asked for."""
    with refused() as refusal:
        get(service, CustomerRef(customer_id="secret-person"))

    assert refusal[0].code is grpc.StatusCode.NOT_FOUND
    assert "secret-person" not in refusal[0].message + str(refusal[0].metadata)
