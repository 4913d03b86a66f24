"""Fixtures that start processes. A failure shows the output of the processes."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.masters import FAST_LEASE_FLAGS, Master, started_master
from tests.e2e.processes import Processes
from tests.e2e.tls import TlsMaster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows the output of the processes with every failure."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for value in item.funcargs.values():
            if isinstance(value, Processes):
                report.sections.extend(value.logs())
    return report


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Processes that end with the test."""
    processes = Processes(tmp_path)
    yield processes
    processes.close()


@pytest.fixture(scope="module")
def shared_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Processes that end with the module."""
    processes = Processes(tmp_path_factory.mktemp("shared"))
    yield processes
    processes.close()


@pytest.fixture
def master(processes: Processes) -> Iterator[Master]:
    """A master with a short heartbeat interval and timeout for one test."""
    master = started_master(processes, *FAST_LEASE_FLAGS)
    yield master
    master.close()
    master.assert_no_errors()


@pytest.fixture(scope="module")
def shared_master(shared_processes: Processes) -> Iterator[Master]:
    """A master with a short heartbeat interval and timeout, shared by a module. Tests restore its state."""
    master = started_master(shared_processes, *FAST_LEASE_FLAGS)
    yield master
    master.close()
    master.assert_no_errors()


@pytest.fixture
def tls(processes: Processes) -> Iterator[TlsMaster]:
    """A master with a CA for one test."""
    tls = TlsMaster(processes)
    yield tls
    tls.close()


@pytest.fixture(scope="module")
def shared_tls(shared_processes: Processes) -> Iterator[TlsMaster]:
    """A master with a CA, shared by a module. Tests restore its state."""
    tls = TlsMaster(shared_processes)
    yield tls
    tls.close()
