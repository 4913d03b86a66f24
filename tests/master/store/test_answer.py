"""master.store.answer"""

from collections.abc import Iterator

import pytest

from fleetpulse.master.mailbox import HubQueue
from fleetpulse.master.store.answer import Answer


@pytest.fixture
def mailbox() -> Iterator[HubQueue]:
    mailbox = HubQueue("test")
    yield mailbox
    mailbox.close()


def test_an_answer_is_a_value_or_an_error(mailbox: HubQueue) -> None:
    value, error, never = Answer(), Answer(), Answer()
    mailbox.post([value.value(None), error.error(KeyError("why"))])
    assert value.wait(20.0)
    assert value.result() is None
    assert error.wait(20.0)
    with pytest.raises(KeyError, match="why"):
        error.result()
    assert not never.wait(0.01)
