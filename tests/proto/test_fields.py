"""proto.fields"""

import sys
import unicodedata
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.fields import RULES, Text, is_visible, visible

NEEDS_NO_RULE = (FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_MESSAGE)


def messages(descriptor: Descriptor, known: tuple[Descriptor, ...] = ()) -> Iterator[Descriptor]:
    """A message type and those of its fields."""
    if descriptor in known or descriptor.GetOptions().map_entry:
        return
    yield descriptor
    for field in descriptor.fields:
        if field.message_type is not None:
            yield from messages(field.message_type, (*known, descriptor))


SENT = {descriptor.name: descriptor for kind in (pb.Register, pb.Heartbeat) for descriptor in messages(kind.DESCRIPTOR)}


@pytest.mark.parametrize("descriptor", SENT.values(), ids=SENT)
def test_every_text_number_and_list_has_a_rule(descriptor: Descriptor) -> None:
    need_a_rule = {field.name for field in descriptor.fields if field.is_repeated or field.type not in NEEDS_NO_RULE}
    assert set(RULES[descriptor.name]) == need_a_rule


def test_every_rule_belongs_to_a_message() -> None:
    assert set(RULES) == set(SENT)


REFUSED_CATEGORIES = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp", "Zs"}


def test_what_is_visible_does_not_depend_on_the_version_of_python() -> None:
    # A worker and a master with another Unicode version must agree: characters that only one of them knows are visible.
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        is_refused = unicodedata.category(character) in REFUSED_CATEGORIES and character != " "
        assert not (is_refused and is_visible(character)), hex(code)
        assert not visible(character) or is_visible(character), hex(code)


@pytest.mark.parametrize("text", ["\u0378", "\U0001fae9", "名前", "é", "a b"])
def test_text_of_unassigned_and_foreign_characters_is_taken(text: str) -> None:
    assert Text().fits(text)
