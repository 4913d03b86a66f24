"""master.telemetry.leases"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fleetpulse.master.telemetry.leases import LeaseTable

TIMEOUT = 30.0
TICK = 0.25


def ticks(table: LeaseTable, start: float, end: float) -> dict[str, float]:
    """Check every quarter of a second up to and at ``end``; whose leases ended, and when."""
    ended = {}
    now = start
    while now < end:
        now += TICK
        ended.update(dict.fromkeys(table.expire(now), now))
    return ended


def test_lease_expires_at_the_first_check_after_its_time_and_once() -> None:
    table = LeaseTable(TIMEOUT)
    table.expire(100.0)
    table.renew("a", 100.0)
    table.renew("b", 100.1)
    assert ticks(table, 100.0, 140.0) == {"a": 130.0, "b": 130.25}
    assert len(table) == 0


def test_renewed_lease_runs_from_its_renewal() -> None:
    table = LeaseTable(TIMEOUT)
    table.renew("a", 0.0)
    table.renew("b", 0.0)
    assert ticks(table, 0.0, 29.75) == {}
    table.renew("a", 29.75)
    assert ticks(table, 29.75, 70.0) == {"b": 30.0, "a": 59.75}


def test_expired_workers_are_ordered_by_last_renewal() -> None:
    table = LeaseTable(1.0, stall_seconds=100.0)
    for worker_id in ("a", "b", "c"):
        table.renew(worker_id, 0.0)
    table.renew("a", 0.5)
    assert table.expire(2.0) == ["b", "c", "a"]


def test_dropped_lease_is_gone() -> None:
    table = LeaseTable(TIMEOUT)
    table.renew("a", 0.0)
    assert "a" in table
    table.drop("a")
    table.drop("never-seen")
    assert "a" not in table
    assert table.silent_seconds("a", 5.0) is None
    assert ticks(table, 0.0, 60.0) == {}


def test_stall_of_the_master_does_not_count_as_silence() -> None:
    table = LeaseTable(TIMEOUT)
    table.expire(0.0)
    table.renew("a", 0.0)
    assert ticks(table, 0.0, 10.0) == {}
    assert table.expire(3610.0) == []  # the laptop slept for an hour
    # 10 s were silent before, so 20 s are left.
    assert ticks(table, 3610.0, 3700.0) == {"a": 3630.0}


def test_first_renewal_after_a_stall_starts_a_whole_lease() -> None:
    table = LeaseTable(TIMEOUT)
    table.expire(0.0)
    table.renew("a", 0.0)
    table.renew("a", 100.0)
    table.renew("b", 100.0)
    assert table.silent_seconds("a", 100.5) == 0.5
    assert ticks(table, 100.0, 200.0) == {"a": 130.0, "b": 130.0}


def test_lease_from_before_a_stall_does_not_outlast_later_ones() -> None:
    table = LeaseTable(TIMEOUT)
    table.expire(0.0)
    table.renew("a", 1.0)  # the check was late by a little ...
    table.expire(1.25)  # ... and this is no stall, for the master heard somebody meanwhile
    table.renew("b", 1.5)
    assert ticks(table, 1.5, 40.0) == {"a": 31.0, "b": 31.5}


def test_silence_does_not_include_a_stall() -> None:
    table = LeaseTable(TIMEOUT)
    table.expire(0.0)
    table.renew("a", 0.0)
    table.expire(1.0)
    assert table.silent_seconds("a", 61.0) == 1.0


def test_renewal_older_than_the_last_check_keeps_the_order() -> None:
    table = LeaseTable(TIMEOUT)
    table.expire(99.0)
    table.renew("a", 99.9)
    table.expire(103.0)  # a stall of 3.1 s
    table.renew("b", 100.5)
    table.renew("c", 102.9)
    table.expire(103.25)
    assert ticks(table, 103.25, 140.0) == {"a": 133.0, "b": 133.0, "c": 133.0}


class Leases(RuleBasedStateMachine):
    """Beside the table, a model without its trick: each worker with a time of its own, moved by what is forgiven."""

    workers = st.sampled_from("abcde")

    def __init__(self) -> None:
        super().__init__()
        self.table = LeaseTable(TIMEOUT)
        self.now = 0.0
        self.used_at: float | None = None
        self.heard_at: dict[str, float] = {}

    def use(self) -> None:
        if self.used_at is not None and self.now - self.used_at > 1.0:
            for worker_id in self.heard_at:
                self.heard_at[worker_id] += self.now - self.used_at
        self.used_at = self.now

    @rule(quarters=st.integers(0, 3))
    def pass_time(self, quarters: int) -> None:
        self.now += quarters * TICK

    @rule(quarters=st.integers(5, 4000))
    def stall(self, quarters: int) -> None:
        self.now += quarters * TICK

    @rule(seconds=st.integers(1, 40))
    def check_for_a_while(self, seconds: int) -> None:
        for _ in range(seconds * 4):
            self.now += TICK
            self.check()

    @rule(worker_id=workers)
    def hear(self, worker_id: str) -> None:
        self.use()
        self.heard_at.pop(worker_id, None)
        self.heard_at[worker_id] = self.now
        self.table.renew(worker_id, self.now)

    @rule(worker_id=workers, quarters=st.integers(0, 40))
    def hear_what_waited(self, worker_id: str, quarters: int) -> None:
        arrived = self.now - quarters * TICK
        heard_at = arrived if self.used_at is None else max(arrived, self.used_at)
        now, self.now = self.now, heard_at
        self.use()
        self.now = now
        self.heard_at.pop(worker_id, None)
        self.heard_at[worker_id] = heard_at
        self.table.renew(worker_id, arrived)

    @rule(worker_id=workers)
    def drop(self, worker_id: str) -> None:
        self.heard_at.pop(worker_id, None)
        self.table.drop(worker_id)

    @rule()
    def check(self) -> None:
        self.use()
        due = [name for name, since in self.heard_at.items() if self.now - since >= TIMEOUT]
        for worker_id in due:
            del self.heard_at[worker_id]
        assert self.table.expire(self.now) == due

    @invariant()
    def the_same_workers_have_leases(self) -> None:
        assert {name for name in "abcde" if name in self.table} == self.heard_at.keys()
        assert len(self.table) == len(self.heard_at)

    @rule(worker_id=workers)
    def ask(self, worker_id: str) -> None:
        self.use()
        since = self.heard_at.get(worker_id)
        assert self.table.silent_seconds(worker_id, self.now) == (None if since is None else self.now - since)


TestLeases = Leases.TestCase
