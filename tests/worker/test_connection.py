"""worker.connection"""

import math
import random

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc
from fleetpulse.worker.connection import (
    Backoff,
    Failure,
    MasterStream,
    ReconnectTimes,
    bypasses_proxy,
    is_worth_keeping,
    open_channel,
    pushback_seconds,
)
from tests.worker.scripted import ScriptedStream, run, scripted_master

LOST = Failure(grpc.StatusCode.UNAVAILABLE, "")


class NoJitter(random.Random):
    """Always gives the longest delay."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_delays_grow_by_the_factor_up_to_the_cap() -> None:
    backoff = Backoff(initial_seconds=1.0, factor=2.0, cap_seconds=5.0, rng=NoJitter())
    assert [backoff.next_delay_seconds() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_reset_starts_over_with_the_first_delay() -> None:
    backoff = Backoff(initial_seconds=1.0, factor=2.0, cap_seconds=5.0, rng=NoJitter())
    for _ in range(4):
        backoff.next_delay_seconds()
    backoff.reset()
    assert [backoff.next_delay_seconds() for _ in range(2)] == [1.0, 2.0]


def test_limit_below_the_cap_holds_until_the_next_limit() -> None:
    backoff = Backoff(initial_seconds=1.0, factor=2.0, cap_seconds=5.0, rng=NoJitter())
    backoff.limit(3.0)
    assert [backoff.next_delay_seconds() for _ in range(4)] == [1.0, 2.0, 3.0, 3.0]
    backoff.limit(60.0)
    assert [backoff.next_delay_seconds() for _ in range(2)] == [5.0, 5.0]
    backoff.limit(0.0)
    assert backoff.next_delay_seconds() == 1.0


@given(st.integers())
def test_jitter_shortens_each_delay_by_at_most_half(seed: int) -> None:
    longest, shortened = Backoff(rng=NoJitter()), Backoff(rng=random.Random(seed))
    for _ in range(20):
        delay = longest.next_delay_seconds()
        assert 0.5 * delay <= shortened.next_delay_seconds() <= delay


def test_jitter_spreads_the_first_delays_of_a_fleet() -> None:
    firsts = {Backoff(rng=random.Random(seed)).next_delay_seconds() for seed in range(100)}
    assert len(firsts) == 100
    assert max(firsts) - min(firsts) > 0.1


def test_fleet_is_back_five_seconds_after_a_restart_of_two_seconds() -> None:
    """Tries that fail at once, as they do while nobody listens, are never further apart than three seconds by then."""
    backoff = Backoff(rng=NoJitter())
    elapsed = 0.0
    while elapsed < 2.0:
        elapsed += backoff.next_delay_seconds()
    assert elapsed < 5.0


def test_default_delays_are_at_most_15_seconds() -> None:
    backoff = Backoff()
    assert max(backoff.next_delay_seconds() for _ in range(200)) <= 15.0


def lease_of(spread_seconds: float, timeout_seconds: float = 30.0, interval_seconds: float = 5.0) -> pb.Registered:
    return pb.Registered(
        heartbeat_interval_seconds=interval_seconds,
        inactivity_timeout_seconds=timeout_seconds,
        reconnect_spread_seconds=spread_seconds,
    )


def registered(rng: random.Random, lease: pb.Registered) -> ReconnectTimes:
    times = ReconnectTimes(rng)
    times.registered(lease)
    return times


@pytest.mark.parametrize("spread_seconds", [0.0, 0.003, math.nan, -5.0, -math.inf])
def test_worker_of_a_small_fleet_is_back_as_fast_as_ever(spread_seconds: float) -> None:
    times = registered(NoJitter(), lease_of(spread_seconds))
    assert [times.delay_after_loss(60.0), times.delay_after_failure(LOST)] == [0.25, 0.4]


def test_large_fleet_comes_back_spread_over_the_time_that_the_master_told() -> None:
    delays = [registered(random.Random(seed), lease_of(8.0)).delay_after_loss(60.0) for seed in range(800)]
    for second in range(8):
        assert 50 <= sum(second <= delay < second + 1 for delay in delays) <= 150


def test_tries_of_a_large_fleet_that_fail_keep_it_spread_out() -> None:
    times = registered(random.Random(1), lease_of(8.0))
    assert all(4.0 <= times.delay_after_failure(LOST) <= 15.0 for _ in range(50))


@given(st.floats(), st.floats(0.1, 60.0), st.floats(2.0, 10.0), st.integers(0), st.booleans())
def test_spread_never_endangers_the_lease(
    told: float, interval_seconds: float, timeout_ratio: float, seed: int, was_tried: bool
) -> None:
    """The last heartbeat may be one interval old when the stream is lost; half of the rest is for the registration."""
    timeout_seconds = interval_seconds * timeout_ratio
    times = registered(random.Random(seed), lease_of(told, timeout_seconds, interval_seconds))
    delay = times.delay_after_failure(LOST) if was_tried else times.delay_after_loss(60.0)
    assert 0.0 <= delay <= max((timeout_seconds - interval_seconds) / 2.0, 0.4)


def test_next_tries_are_at_least_two_within_an_inactivity_timeout() -> None:
    times = registered(NoJitter(), lease_of(0.0, timeout_seconds=3.0, interval_seconds=1.0))
    assert max(times.delay_after_failure(LOST) for _ in range(30)) <= 1.5


def test_only_a_stream_that_lasted_makes_the_delays_short_again() -> None:
    times = registered(NoJitter(), lease_of(0.0))
    for _ in range(5):
        times.delay_after_failure(LOST)
    assert times.delay_after_loss(1.0) > 2.0
    assert times.delay_after_loss(5.0) == 0.25


def test_pushback_is_kept_to_with_jitter_and_a_bound() -> None:
    asked = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "", pushback_seconds=8.0)
    delays = [ReconnectTimes(random.Random(seed)).delay_after_failure(asked) for seed in range(100)]
    assert min(delays) >= 8.0
    assert 9.0 < max(delays) <= 10.0
    forever = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "", pushback_seconds=1e6)
    assert ReconnectTimes(NoJitter()).delay_after_failure(forever) == 150.0
    at_once = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "", pushback_seconds=0.0)
    assert ReconnectTimes(NoJitter()).delay_after_failure(at_once) == 0.25, "no tight loop"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("1500", 1.5), ("0", 0.0), (b"250", 0.25), ("999999999", 999_999.999)),
        *(("-1", None), ("", None), ("soon", None), ("1.5", None), ("1e3", None), ("9" * 10, None), ("\u0663", None)),
    ],
)
def test_pushback_is_a_number_of_milliseconds(value: str | bytes, seconds: float | None) -> None:
    metadata = grpc.aio.Metadata(("other", "7"), ("grpc-retry-pushback-ms", value))
    error = grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), metadata)
    assert pushback_seconds(error) == seconds


def test_time_for_the_first_answer_grows_until_there_is_one() -> None:
    times, waits = ReconnectTimes(NoJitter()), []
    for _ in range(5):
        waits.append(times.first_answer_seconds)
        times.delay_after_failure(Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "", unanswered_seconds=waits[-1]))
        times.delay_after_failure(LOST)
    assert waits == [10.0, 20.0, 40.0, 60.0, 60.0]


def test_worker_that_was_registered_waits_for_the_longest_time_from_the_first_try() -> None:
    assert registered(NoJitter(), lease_of(0.0)).first_answer_seconds == 60.0


@pytest.mark.parametrize(
    ("state", "failure", "unanswered_seconds", "keeps"),
    [
        (grpc.ChannelConnectivity.READY, LOST, 0.0, True),
        (grpc.ChannelConnectivity.IDLE, LOST, 0.0, True),
        (grpc.ChannelConnectivity.CONNECTING, Failure(grpc.StatusCode.DEADLINE_EXCEEDED, ""), 10.0, True),
        (grpc.ChannelConnectivity.TRANSIENT_FAILURE, LOST, 0.0, False),
        (grpc.ChannelConnectivity.SHUTDOWN, LOST, 0.0, False),
        (grpc.ChannelConnectivity.READY, Failure(grpc.StatusCode.DEADLINE_EXCEEDED, ""), 70.0, True),
        (grpc.ChannelConnectivity.READY, Failure(grpc.StatusCode.DEADLINE_EXCEEDED, ""), 130.0, False),
        (grpc.ChannelConnectivity.READY, Failure(grpc.StatusCode.ALREADY_EXISTS, ""), 0.0, False),
        (grpc.ChannelConnectivity.READY, Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, ""), 0.0, False),
        (grpc.ChannelConnectivity.READY, Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "", 5.0), 0.0, True),
    ],
)
def test_channel_is_kept_while_it_is_of_use(
    state: grpc.ChannelConnectivity, failure: Failure, unanswered_seconds: float, keeps: bool
) -> None:
    assert is_worth_keeping(state, failure, unanswered_seconds) is keeps


@pytest.mark.parametrize(
    ("host", "exceptions"),
    [
        ("127.0.0.1", ""), ("[::1]", ""), ("localhost", ""), ("127.9.9.9", ""),
        ("master", "*"), ("master", "a,master"), ("Master.", " MASTER "),
        ("rack.example.org", "example.org"), ("rack.example.org", ".example.org"),
        ("rack.example.org", "*.example.org"),
        ("10.1.2.3", "10.0.0.0/8"), ("10.1.2.3", "10.1.2.3"), ("[fd00::7]", "fd00::/8"),
    ],
)  # fmt: skip
def test_exceptions_go_past_the_proxy(host: str, exceptions: str) -> None:
    assert bypasses_proxy(host, exceptions)


@pytest.mark.parametrize(
    ("host", "exceptions"),
    [
        ("master", ""), ("master", ",, "), ("master", "aster"), ("badexample.org", "example.org"),
        ("11.1.2.3", "10.0.0.0/8"), ("10.1.2.3", "fd00::/8"), ("master", "10.0.0.0/8"), ("10.1.2.3", "10.0.0.0/99"),
    ],
)  # fmt: skip
def test_others_go_through_the_proxy(host: str, exceptions: str) -> None:
    assert not bypasses_proxy(host, exceptions)


def test_write_that_comes_after_the_end_fails_with_the_status_of_the_master() -> None:
    """grpc itself says INTERNAL nearly each time, and loses the delay that the master asks for."""
    found: set[tuple[grpc.StatusCode, float | None]] = set()

    async def turn_away(stream: ScriptedStream) -> None:
        await stream.abort(grpc.StatusCode.UNAVAILABLE, "come back", (("grpc-retry-pushback-ms", "4000"),))

    async def write_to_the_end(stream: MasterStream) -> None:
        try:
            while True:
                await stream.write(pb.WorkerMessage(register=pb.Register(worker_id="rack-7")))
        except grpc.aio.AioRpcError as error:
            found.add((error.code(), pushback_seconds(error)))

    async def test() -> None:
        async with scripted_master(turn_away) as master, open_channel(master.target, None) as channel:
            for _ in range(100):
                await write_to_the_end(MasterStream(pb_grpc.FleetStub(channel).Connect()))

    run(test())
    assert found == {(grpc.StatusCode.UNAVAILABLE, 4.0)}
