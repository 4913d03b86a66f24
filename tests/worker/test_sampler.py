"""worker.sampler"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors import Collector, CollectorError
from fleetpulse.worker.sampler import ERROR_MAX_LENGTH, Sampler, describe

TIMEOUT_SECONDS = 20.0
"""Far more than any wait takes."""


class Fixed:
    """Gives the same fields every time."""

    def __init__(self, name: str, fields: pb.Heartbeat) -> None:
        self.name = name
        self.threads: set[str] = set()
        self._fields = fields

    def collect(self) -> pb.Heartbeat:
        self.threads.add(threading.current_thread().name)
        return self._fields


class Failing:
    """Raises ``error`` as long as there is one."""

    name = "failing"

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def collect(self) -> pb.Heartbeat:
        if self.error is not None:
            raise self.error
        return pb.Heartbeat(uptime_seconds=7.0)


class Hanging:
    """Hangs in the first call until it is released; returns the number of the call as the load."""

    name = "hanging"

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()
        self.calls = 0

    def collect(self) -> pb.Heartbeat:
        self.calls += 1
        number = self.calls
        self.entered.set()
        self.released.wait()
        return pb.Heartbeat(load=pb.Load(load1=number))


LOAD = Fixed("load", pb.Heartbeat(load=pb.Load(load1=1.5)))
MEMORY = Fixed("memory", pb.Heartbeat(memory=pb.Memory(size_bytes=1024)))


@contextmanager
def sampling(*collectors: Collector, deadline_seconds: float = TIMEOUT_SECONDS) -> Iterator[Sampler]:
    sampler = Sampler(collectors, deadline_seconds=deadline_seconds)
    sampler.start()
    try:
        yield sampler
    finally:
        for collector in collectors:
            if isinstance(collector, Hanging):
                collector.released.set()
        sampler.stop()


def wait_for(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < give_up_at, "the condition did not come true in time"
        time.sleep(0.002)


def report_of(heartbeat: pb.Heartbeat, name: str) -> pb.CollectorReport:
    (report,) = (report for report in heartbeat.collectors if report.collector == name)
    return report


def collector_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("collector-")}


def test_heartbeat_has_the_fields_of_all_collectors_and_a_report_for_each() -> None:
    with sampling(LOAD, MEMORY) as sampler:
        heartbeat = sampler.sample()
    assert heartbeat.load.load1 == 1.5
    assert heartbeat.memory.size_bytes == 1024
    assert [(report.collector, report.success, report.error) for report in heartbeat.collectors] == [
        ("load", True, ""),
        ("memory", True, ""),
    ]
    assert all(report.duration_seconds >= 0.0 for report in heartbeat.collectors)


def test_each_collector_has_its_own_named_thread() -> None:
    load, memory = Fixed("load", pb.Heartbeat()), Fixed("memory", pb.Heartbeat())
    with sampling(load, memory) as sampler:
        sampler.sample()
        sampler.sample()
        assert {thread.name for thread in collector_threads()} == {"collector-load", "collector-memory"}
        assert all(thread.daemon for thread in collector_threads())
    assert load.threads == {"collector-load"}
    assert memory.threads == {"collector-memory"}


def test_changing_a_heartbeat_does_not_change_the_collector() -> None:
    kept = Fixed("gpu", pb.Heartbeat(gpus=[pb.Gpu(index=0)]))
    with sampling(kept) as sampler:
        assert [len(sampler.sample().gpus) for _ in range(3)] == [1, 1, 1]


def test_sampler_without_collectors_gives_an_empty_heartbeat() -> None:
    with sampling() as sampler:
        assert sampler.sample() == pb.Heartbeat()


def test_reported_duration_is_that_of_the_call() -> None:
    now = [100.0]

    class Slow:
        name = "slow"

        def collect(self) -> pb.Heartbeat:
            now[0] += 0.25
            return pb.Heartbeat()

    sampler = Sampler([Slow()], clock=lambda: now[0])
    sampler.start()
    assert sampler.sample().collectors[0].duration_seconds == pytest.approx(0.25)
    sampler.stop()


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ZeroDivisionError("bug"), SystemExit(3)])
def test_failing_collector_is_reported_and_does_not_affect_the_others(error: BaseException) -> None:
    failing = Failing(error)
    with sampling(LOAD, failing, MEMORY) as sampler:
        heartbeat = sampler.sample()
        assert (heartbeat.load.load1, heartbeat.memory.size_bytes) == (1.5, 1024)
        report = report_of(heartbeat, "failing")
        assert not report.success
        assert report.error == f"{type(error).__name__}: {error}"
        failing.error = None
        recovered = sampler.sample()
    assert report_of(recovered, "failing").success
    assert recovered.uptime_seconds == 7.0


def test_collector_that_returns_none_is_reported() -> None:
    class Broken:
        name = "broken"

        def collect(self) -> pb.Heartbeat:
            return None  # type: ignore[return-value]  # the mistake

    with sampling(Broken(), LOAD) as sampler:
        heartbeat = sampler.sample()
    assert report_of(heartbeat, "broken").error.startswith("TypeError: ")
    assert heartbeat.load.load1 == 1.5


def test_failure_and_recovery_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    failing = Failing()
    with caplog.at_level(logging.INFO), sampling(failing) as sampler:
        sampler.sample()
        assert caplog.messages == []
        failing.error = CollectorError("no luck")
        for _ in range(3):
            sampler.sample()
        assert caplog.messages == ["collector failing fails: no luck"]
        failing.error = None
        for _ in range(3):
            sampler.sample()
        assert caplog.messages[1:] == ["collector failing works again"]
        failing.error = CollectorError("again")
        sampler.sample()
    assert caplog.messages[2:] == ["collector failing fails: again"]
    assert {record.name for record in caplog.records} == {"fleetpulse.worker.sampler"}


@pytest.mark.parametrize(
    ("error", "traced"), [(CollectorError("x"), False), (OSError(5, "x"), False), (KeyError("x"), True)]
)
def test_only_unexpected_errors_are_logged_with_a_traceback(
    error: Exception, traced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with sampling(Failing(error)) as sampler:
        sampler.sample()
    assert ("Traceback" in caplog.text) == traced


def test_hanging_collector_delays_a_heartbeat_by_the_deadline_only() -> None:
    hanging = Hanging()
    with sampling(hanging, LOAD, deadline_seconds=0.2) as sampler:
        started = time.monotonic()
        heartbeat = sampler.sample()
        assert 0.2 <= time.monotonic() - started < TIMEOUT_SECONDS
        report = report_of(heartbeat, "hanging")
        assert not report.success
        assert report.error == "still running after 0.2 s"
        assert report.duration_seconds >= 0.2
        assert report_of(heartbeat, "load").success


def test_hanging_collector_is_neither_awaited_nor_called_again() -> None:
    hanging = Hanging()
    with sampling(hanging, LOAD, deadline_seconds=0.05) as sampler:
        first = report_of(sampler.sample(), "hanging")
        sampler.deadline_seconds = TIMEOUT_SECONDS
        started = time.monotonic()
        second = report_of(sampler.sample(), "hanging")
        assert time.monotonic() - started < TIMEOUT_SECONDS
        assert hanging.calls == 1
        assert not second.success
        assert second.duration_seconds > first.duration_seconds
        assert len(collector_threads()) == 2


def test_late_result_goes_with_the_next_heartbeat_and_its_age() -> None:
    hanging = Hanging()
    with sampling(hanging, deadline_seconds=0.05) as sampler:
        assert not report_of(sampler.sample(), "hanging").success
        hanging.released.set()
        wait_for(lambda: not sampler._results.empty())
        heartbeat = sampler.sample()
        report = report_of(heartbeat, "hanging")
    assert report.success
    assert report.age_seconds >= report.duration_seconds >= 0.05
    assert heartbeat.load.load1 == 1.0


class Driver:
    """Takes its time by a clock that the test moves; the load is the number of the call."""

    name = "driver"

    def __init__(self, now: list[float]) -> None:
        self.calls = 0
        self.proceed: SimpleQueue[float] = SimpleQueue()
        self._now = now

    def collect(self) -> pb.Heartbeat:
        self.calls += 1
        number = self.calls
        self._now[0] += self.proceed.get()
        return pb.Heartbeat(load=pb.Load(load1=number))


def test_collector_slower_than_a_round_is_read_at_every_heartbeat_and_not_waited_for() -> None:
    now = [100.0]
    driver = Driver(now)
    sampler = Sampler([driver, MEMORY], clock=lambda: now[0])
    sampler.deadline_seconds = 0.05  # of real time, before it is known to be slow
    sampler.start()
    try:
        driver_error = report_of(sampler.sample(), "driver").error
        assert driver_error.startswith("still running after")
        sampler.deadline_seconds = TIMEOUT_SECONDS  # a wait for the driver would be noticed
        started = time.monotonic()
        for number in range(1, 6):
            driver.proceed.put(1.2 * TIMEOUT_SECONDS)
            wait_for(lambda: not sampler._results.empty())
            heartbeat = sampler.sample()
            report = report_of(heartbeat, "driver")
            assert (heartbeat.load.load1, report.success) == (number, True)
            assert report.age_seconds == pytest.approx(1.2 * TIMEOUT_SECONDS)
            assert heartbeat.memory.size_bytes == 1024
        assert time.monotonic() - started < TIMEOUT_SECONDS
        for _ in range(2):
            driver.proceed.put(0.1)
        wait_for(lambda: not sampler._results.empty())
        assert sampler.sample().load.load1 == 7.0
        driver.proceed.put(0.1)
        report = report_of(sampler.sample(), "driver")
        assert not report.HasField("age_seconds")  # it is fast again
    finally:
        for _ in range(3):
            driver.proceed.put(0.1)
        sampler.stop()


def test_late_result_that_arrives_during_the_next_round_is_used() -> None:
    hanging = Hanging()

    class Releasing:
        """In its second call it releases the hanging collector, and waits until the sampler has its result."""

        name = "releasing"
        calls = 0

        def collect(self) -> pb.Heartbeat:
            self.calls += 1
            if self.calls == 2:
                hanging.released.set()
                wait_for(lambda: sampler._threads[0].called_at is None)
            return pb.Heartbeat()

    with sampling(hanging, Releasing(), deadline_seconds=0.05) as sampler:
        sampler.sample()
        sampler.deadline_seconds = TIMEOUT_SECONDS
        heartbeat = sampler.sample()
        report = report_of(heartbeat, "hanging")
        assert report.success
        assert report.HasField("age_seconds")
        assert heartbeat.load.load1 == 1.0
        assert report_of(sampler.sample(), "hanging").success


def test_threads_end_with_the_stop() -> None:
    before = set(threading.enumerate())
    with sampling(LOAD, MEMORY, Failing(OSError("x"))) as sampler:
        for _ in range(5):
            sampler.sample()
        assert len(set(threading.enumerate()) - before) == 3
    assert set(threading.enumerate()) <= before


def test_stop_does_not_wait_for_a_hanging_collector(caplog: pytest.LogCaptureFixture) -> None:
    hanging = Hanging()
    with sampling(LOAD, hanging, deadline_seconds=0.01) as sampler:
        sampler.sample()
        started = time.monotonic()
        sampler.stop()
        assert time.monotonic() - started < TIMEOUT_SECONDS
        assert {thread.name for thread in collector_threads()} == {"collector-hanging"}
        assert caplog.messages[-1].endswith("left behind: hanging")
        hanging.released.set()
        wait_for(lambda: not collector_threads())


def test_stop_ends_a_waiting_round() -> None:
    hanging = Hanging()
    heartbeats: list[pb.Heartbeat] = []
    with sampling(hanging) as sampler:
        started = time.monotonic()
        caller = threading.Thread(target=lambda: heartbeats.append(sampler.sample()))
        caller.start()
        assert hanging.entered.wait(TIMEOUT_SECONDS)
        sampler.stop()
        caller.join()
        assert time.monotonic() - started < TIMEOUT_SECONDS
    assert not report_of(heartbeats[0], "hanging").success


def test_second_caller_waits_for_the_first() -> None:
    start_together = threading.Barrier(2)
    heartbeats: list[pb.Heartbeat] = []

    def call(sampler: Sampler) -> None:
        start_together.wait()
        heartbeats.extend(sampler.sample() for _ in range(20))

    with sampling(LOAD, MEMORY) as sampler:
        callers = [threading.Thread(target=call, args=(sampler,)) for _ in range(2)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert len(heartbeats) == 40
    assert all(report.success for heartbeat in heartbeats for report in heartbeat.collectors)


def test_sample_raises_before_start_and_after_stop() -> None:
    sampler = Sampler([LOAD])
    with pytest.raises(RuntimeError, match="between start and stop"):
        sampler.sample()
    sampler.stop()
    sampler.start()
    with pytest.raises(RuntimeError):
        sampler.start()
    sampler.stop()
    sampler.stop()
    with pytest.raises(RuntimeError, match="between start and stop"):
        sampler.sample()


def test_two_collectors_with_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="same name: load, load"):
        Sampler([LOAD, LOAD])


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CollectorError("no GPU answers"), "no GPU answers"),
        (FileNotFoundError(2, "No such file", "/proc/x"), "FileNotFoundError: [Errno 2] No such file: '/proc/x'"),
        (ValueError("two\nlines\x1b[31m \x00\x7f"), "ValueError: two lines [31m"),
        (ValueError("right\u202eleft \udcff"), "ValueError: right left"),
        (TimeoutError(), "TimeoutError"),
        (CollectorError(), "CollectorError"),
    ],
    ids=["collector", "system", "control characters", "invisible and invalid characters", "empty", "empty collector"],
)
def test_error_is_described_in_one_printable_line(error: Exception, text: str) -> None:
    assert describe(error) == text


def test_long_error_is_cut() -> None:
    assert describe(CollectorError("x" * 5000)) == "x" * (ERROR_MAX_LENGTH - 1) + "…"


# Custom metrics


def custom_metric(name: str, *values: float, kind: "pb.CustomType.ValueType" = pb.CUSTOM_TYPE_GAUGE) -> pb.CustomMetric:
    return pb.CustomMetric(name=name, type=kind, samples=[pb.CustomSample(value=value) for value in values])


def test_first_of_contradicting_custom_metrics_wins_and_other_fields_are_kept() -> None:
    first = Fixed("first", pb.Heartbeat(custom=[custom_metric("x", 1.0)]))
    second = Fixed("second", pb.Heartbeat(custom=[custom_metric("x", 2.0), custom_metric("y", 2.0)]))
    third = Fixed(
        "third",
        pb.Heartbeat(custom=[custom_metric("z", 3.0), custom_metric("x_total", 3.0, kind=pb.CUSTOM_TYPE_COUNTER)]),
    )
    fourth = Fixed("fourth", pb.Heartbeat(custom=[custom_metric("y", 4.0)]))
    with sampling(first, second, third, fourth, LOAD) as sampler:
        for _ in range(2):
            heartbeat = sampler.sample()
            assert heartbeat.custom == [custom_metric("x", 1.0), custom_metric("y", 4.0)]
            assert heartbeat.load.load1 == 1.5
            errors = {report.collector: report.error for report in heartbeat.collectors}
            assert errors.pop("second") == "x{} comes twice"
            assert errors.pop("third").startswith("x_total comes with two types")
            assert set(errors.values()) == {""}


def test_valid_metrics_of_a_collector_with_parts_are_kept() -> None:
    parts = [pb.CollectorReport(collector=f"textfile:{name}.prom", success=True) for name in "ab"]
    files = pb.Heartbeat(custom=[custom_metric("x", 2.0), custom_metric("y", 2.0)], collectors=parts)
    with sampling(Fixed("first", pb.Heartbeat(custom=[custom_metric("x", 1.0)])), Fixed("textfile", files)) as sampler:
        heartbeat = sampler.sample()
    assert heartbeat.custom == [custom_metric("x", 1.0), custom_metric("y", 2.0)]
    assert report_of(heartbeat, "textfile").error == "x{} comes twice"
    assert report_of(heartbeat, "textfile:a.prom").success


def test_reports_of_parts_are_kept_and_their_failures_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    broken = pb.CollectorReport(collector="textfile:a.prom", error="line 1 is not Prometheus' text format")
    with sampling(Fixed("textfile", pb.Heartbeat(collectors=[broken]))) as sampler:
        heartbeats = [sampler.sample() for _ in range(2)]
    assert [report.collector for report in heartbeats[0].collectors] == ["textfile:a.prom", "textfile"]
    assert caplog.text.count("textfile:a.prom fails: line 1 is not") == 1
