"""The contract's own rules: names, comments, compatibility, and that the generated code is of these files."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor, MethodDescriptor

from models.cascade import Event
from models.context import CascadeEnd, DegradedCause, Mode, Reason, Verdict
from service.gen.channelchoice.v1 import (
    admin_service_pb2,
    channel_choice_service_pb2,
    customer_pb2,
    customer_service_pb2,
    decision_pb2,
    feature_pb2,
    message_pb2,
    money_pb2,
    outcome_pb2,
    outcome_service_pb2,
    status_pb2,
)

FILES: tuple[FileDescriptor, ...] = tuple(
    module.DESCRIPTOR
    for module in (
        admin_service_pb2,
        channel_choice_service_pb2,
        customer_pb2,
        customer_service_pb2,
        decision_pb2,
        feature_pb2,
        message_pb2,
        money_pb2,
        outcome_pb2,
        outcome_service_pb2,
        status_pb2,
    )
)
TIMESTAMP, DURATION, MONEY = "google.protobuf.Timestamp", "google.protobuf.Duration", "channelchoice.v1.Money"
UNITS = re.compile(r"_(micros|seconds|secs|millis|minutes|hours|days|ms|sec)$")
NEGATED = re.compile(r"(^|_)(no|not|non|never|without|disable|disabled|un[a-z]+|dont|skip|exclude)(_|$)")


def all_messages() -> Iterator[Descriptor]:
    """Every message of the contract, nested ones among them; the entries of maps are not messages of ours."""
    waiting: list[Descriptor] = [message for file in FILES for message in file.message_types_by_name.values()]
    while waiting:
        message = waiting.pop()
        if not message.GetOptions().map_entry:
            yield message
            waiting.extend(message.nested_types)


def all_fields() -> list[FieldDescriptor]:
    return [field for message in all_messages() for field in message.fields]


def all_enums() -> list[EnumDescriptor]:
    nested = [enum for message in all_messages() for enum in message.enum_types]
    return [enum for file in FILES for enum in file.enum_types_by_name.values()] + nested


def all_methods() -> list[MethodDescriptor]:
    return [method for file in FILES for service in file.services_by_name.values() for method in service.methods]


def type_of(field: FieldDescriptor) -> str:
    """The full name of a message field's type, empty for a scalar."""
    return field.message_type.full_name if field.message_type is not None else ""


def names(found: Iterable[FieldDescriptor | EnumDescriptor | MethodDescriptor]) -> list[str]:
    return sorted(element.full_name for element in found)


def is_integer(field: FieldDescriptor) -> bool:
    return field.cpp_type in (
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    )


def run_buf(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the buf binary that is installed beside the interpreter."""
    buf = Path(sys.executable).parent / "buf"
    return subprocess.run([buf, *arguments], cwd=root, capture_output=True, text=True, timeout=60, check=False)


def test_every_proto_file_is_looked_at(root: Path) -> None:
    """The rules below are held against every file of the contract, so that a new one cannot slip by."""
    on_disk = {f"channelchoice/v1/{path.name}" for path in (root / "proto/channelchoice/v1").glob("*.proto")}

    assert {file.name for file in FILES} == on_disk


def test_a_field_ends_in_time_exactly_where_it_is_a_timestamp() -> None:
    """Points in time end in _time and are Timestamps; nothing else ends so."""
    wrong = [field for field in all_fields() if (type_of(field) == TIMESTAMP) != field.name.endswith("_time")]

    assert names(wrong) == []


def test_durations_have_no_unit_in_their_name() -> None:
    """A Duration carries its unit, so its name has none."""
    wrong = [field for field in all_fields() if type_of(field) == DURATION and UNITS.search(field.name)]

    assert names(wrong) == []


def test_no_number_stands_for_a_duration_or_time() -> None:
    """Spans and points in time are Durations and Timestamps, never numbers of seconds or days."""
    units = re.compile(r"(seconds|secs|millis|minutes|hours|days|_ms|_ns|timestamp|ttl)$")
    wrong = [field for field in all_fields() if not type_of(field) and units.search(field.name)]

    assert names(wrong) == []


def test_micros_are_nowhere_but_in_money() -> None:
    """An amount always travels with its currency: bare micros are in Money alone."""
    found = [field for field in all_fields() if "micros" in field.name]

    assert names(found) == ["channelchoice.v1.Money.micros"]


def test_what_is_called_by_an_amount_is_money() -> None:
    """Fields named as amounts are Money; the shadow price alone is a ratio."""
    called = re.compile(r"(^|_)(price|cost|margin|amount|value|harm|cap|reserved|committed|override)$")
    values = {"Identity", "FeatureValue"}
    wrong = [
        field
        for field in all_fields()
        if called.search(field.name)
        and field.name != "shadow_price"
        and field.full_name.split(".")[-2] not in values
        and type_of(field) != MONEY
    ]

    assert names(wrong) == []


def test_every_enum_starts_at_unspecified() -> None:
    """Zero is *_UNSPECIFIED in every enum, so that what was not said is seen to be so."""
    wrong = [
        enum for enum in all_enums() if enum.values[0].number != 0 or not enum.values[0].name.endswith("_UNSPECIFIED")
    ]

    assert all_enums()
    assert names(wrong) == []


def test_enum_values_carry_the_prefix_of_their_enum() -> None:
    """Values are prefixed with their enum's name in UPPER_SNAKE, since enum values share one namespace in C++."""
    wrong = []
    for enum in all_enums():
        prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"
        wrong += [value.name for value in enum.values if not value.name.startswith(prefix)]

    assert wrong == []


def test_booleans_are_claims_that_are_not_negated() -> None:
    """A bool says what is, never what is not, so that no caller reads a double negation."""
    booleans = [field for field in all_fields() if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL]
    wrong = [field for field in booleans if NEGATED.search(field.name)]

    assert booleans
    assert names(wrong) == []


def test_counts_are_integers() -> None:
    """What is called a count is an integer, and not negative by any other name."""
    wrong = [field for field in all_fields() if field.name.endswith("_count") and not is_integer(field)]

    assert names(wrong) == []


def test_every_method_has_a_request_and_a_response_of_its_own() -> None:
    """Request and response are named after their method, so that each can grow by itself."""
    wrong = [
        method
        for method in all_methods()
        if (method.input_type.name, method.output_type.name) != (f"{method.name}Request", f"{method.name}Response")
    ]

    assert all_methods()
    assert names(wrong) == []


def test_repeated_fields_are_plural_or_collective() -> None:
    """A repeated field is named for many; the words that have no plural of that form are listed here."""
    collective = {"suppressed", "reserved", "degraded", "reachability", "advance_on", "stop_on"}
    wrong = [
        field
        for field in all_fields()
        if field.is_repeated and not field.name.endswith("s") and field.name not in collective
    ]

    assert names(wrong) == []


def test_buf_lint_passes(root: Path) -> None:
    """Every element is named and commented by buf's STANDARD and COMMENTS rules."""
    result = run_buf(root, "lint")

    assert result.returncode == 0, result.stdout + result.stderr


def test_nothing_breaks_callers_of_the_released_contract(root: Path) -> None:
    """A caller built on the released contract still works; after a release, `make release-proto` renews the baseline."""
    result = run_buf(root, "breaking", "--against", "tests/contract/released.binpb")

    assert result.returncode == 0, result.stdout + result.stderr


def test_removing_a_field_is_seen_as_breaking(root: Path, tmp_path: Path) -> None:
    """The check above can fail: the released contract less one field is refused."""
    shutil.copytree(root / "proto", tmp_path / "proto")
    shutil.copy(root / "buf.yaml", tmp_path)
    money = tmp_path / "proto/channelchoice/v1/money.proto"
    money.write_text(money.read_text().replace("  string currency = 2;\n", ""))

    result = run_buf(tmp_path, "breaking", "--against", str(root / "tests/contract/released.binpb"))

    assert result.returncode == 100
    assert '"currency"' in result.stdout


def test_generated_code_is_of_this_contract(root: Path, tmp_path: Path) -> None:
    """`make proto` run again gives service/gen byte for byte."""
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    command = ["make", "proto", "-o", ".venv/.dev", f"PY={sys.executable}", f"GENERATED={tmp_path}"]

    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, timeout=120)

    assert contents(tmp_path / "channelchoice") == contents(root / "service/gen/channelchoice")


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every generated file, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.py*")) if is_source(path)
    }


def is_source(path: Path) -> bool:
    return path.suffix in (".py", ".pyi")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Verdict, decision_pb2.DESCRIPTOR.enum_types_by_name["Verdict"]),
        (Reason, decision_pb2.DESCRIPTOR.enum_types_by_name["SuppressionReason"]),
        (CascadeEnd, decision_pb2.DESCRIPTOR.enum_types_by_name["CascadeEnd"]),
        (DegradedCause, decision_pb2.DESCRIPTOR.enum_types_by_name["DegradedCause"]),
        (Event, decision_pb2.DESCRIPTOR.enum_types_by_name["CascadeEvent"]),
        (Mode, decision_pb2.DESCRIPTOR.enum_types_by_name["DecisionMode"]),
    ],
    ids=lambda value: getattr(value, "__name__", getattr(value, "name", "")),
)
def test_our_enums_are_the_contracts(ours: type[StrEnum], theirs: EnumDescriptor) -> None:
    """Each enum of models has the names of the contract's, no more and no fewer, and each value is its name in lower case."""
    prefix = theirs.values[0].name.removesuffix("UNSPECIFIED")

    assert {member.name for member in ours} == {value.name.removeprefix(prefix) for value in theirs.values[1:]}
    assert [member.value for member in ours] == [member.name.lower() for member in ours]
