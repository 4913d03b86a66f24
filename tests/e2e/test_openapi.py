"""schemathesis against a running master and its own OpenAPI document.

For every operation valid requests are accepted, invalid ones are refused, and every answer matches the document.
The examples are the same in every run, except for the ids of tasks.
"""

import shlex
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from fleetpulse.master.api.operations import Operation
from fleetpulse.master.api.routes import ROUTES
from fleetpulse.proto.image import MAX_REPOSITORY_LENGTH
from tests.e2e.jobs import Jobs
from tests.e2e.masters import Master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

FLEET = 3
SEED = 5
EXAMPLES = 12
"""Per operation, valid and invalid each."""

PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "))
schemathesis.openapi.format("printable", PRINTABLE)
WORDS = st.lists(PRINTABLE, min_size=1, max_size=3).filter(lambda words: words[0] != "").map(shlex.join)
schemathesis.openapi.format("shell-words", WORDS)
schemathesis.openapi.format("cursor", st.nothing())
schemathesis.openapi.format("moment", st.just("-1h"))

Case = schemathesis.Case[Any]
LARGE = 1000
"""Larger limits are removed from the schema: exceeding some of them would take half a gigabyte."""


class BriefSession(requests.Session):
    """Reads only the first event of an endless answer."""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().request(*args, **{**kwargs, "stream": True})
        if response.headers.get("Content-Type", "").startswith("text/event-stream"):
            with response:
                lines = iter(response.iter_lines(chunk_size=1))
                response._content = b"\n".join(iter(lambda: next(lines, b""), b""))
        return response


class KnownIds:
    """A master with workers and tasks. Their ids replace generated valid ids."""

    def __init__(self, master: Master, tasks: list[str]) -> None:
        self.master = master
        self.session = BriefSession()
        self.session.trust_env = False
        self._ids = {"task_id": cycle(tasks), "worker_id": cycle([f"sim-{n}" for n in range(1, FLEET + 1)])}

    def fill(self, case: Case) -> None:
        """Replaces ids with existing ones, and removes errors that a schema cannot express."""
        for name in set(case.path_parameters or {}) & self._ids.keys():
            case.path_parameters[name] = next(self._ids[name])
        _exclude(case.query or {})
        if case.headers.get("Last-Event-ID") == "0":
            del case.headers["Last-Event-ID"]  # schemathesis' own default for a header, whatever its pattern
        if isinstance(case.body, dict) and len(str(case.body.get("docker_image"))) > MAX_REPOSITORY_LENGTH:
            case.body["docker_image"] = "busybox"


def _exclude(query: dict[str, Any]) -> None:
    """Removes parameters that exclude each other."""
    for one, others in (("tail", ["offset"]), ("follow", ["limit", "format"])):
        if query.get(one):
            for other in others:
                query.pop(other, None)
    if "to" in query:
        query["to"] = "now"


def without_large_limits(schema: Any) -> Any:
    """Returns a part of the schema without limits of ``LARGE`` or more."""
    if isinstance(schema, list):
        return [without_large_limits(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    limits = {name for name in ("maxLength", "maxItems", "maxProperties") if schema.get(name, 0) >= LARGE}
    return {name: without_large_limits(each) for name, each in schema.items() if name not in limits}


@pytest.fixture(scope="module")
def known(shared_processes: Processes, shared_master: Master) -> Iterator[KnownIds]:
    fleet = shared_processes.simulate(shared_master.target, FLEET, "--gpu-share", "0.5")
    eventually(lambda: len(shared_master.samples("fleetpulse_worker_cpu_usage_ratio")) == FLEET)
    jobs = Jobs(shared_master, "busybox")
    ended = [jobs.submit("echo", "hi"), jobs.submit("sh", "-c", "echo bye; exit 3")]
    for task_id in ended:
        jobs.ended(task_id)
    known = KnownIds(shared_master, [*ended, jobs.submit("true", cpu_required=1000.0)])
    yield known
    known.session.close()
    fleet.kill_all()


@pytest.fixture(scope="module")
def api(known: KnownIds) -> Any:
    """The document of the running master."""
    document = without_large_limits(known.master.json("/openapi.json"))
    api = schemathesis.openapi.from_dict(document, config=schemathesis.Config(seed=SEED))
    # A schema expresses neither the total length of a query nor which tokens exist.
    api.config.checks.positive_data_acceptance.expected_statuses = ["2xx", "3xx", "401", "404", "409", "414"]
    api.config.checks.negative_data_rejection.expected_statuses = ["4xx"]
    return api


BOUNDED = settings(
    max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
OPERATIONS = [(route.path, operation) for route in ROUTES for operation in route.operations]
REFUSING = [(path, operation) for path, operation in OPERATIONS if operation.query or operation.body or "{" in path]


@pytest.mark.parametrize(("path", "operation"), OPERATIONS, ids=lambda value: getattr(value, "name", None))
def test_valid_requests_are_accepted(path: str, operation: Operation, api: Any, known: KnownIds) -> None:
    @BOUNDED
    @given(case=api[path][operation.method].as_strategy(GenerationMode.POSITIVE))
    def ask(case: Case) -> None:
        known.fill(case)
        case.call_and_validate(base_url=known.master.url, session=known.session, timeout=20)

    ask()


@pytest.mark.parametrize(("path", "operation"), REFUSING, ids=lambda value: getattr(value, "name", None))
def test_invalid_requests_are_refused(path: str, operation: Operation, api: Any, known: KnownIds) -> None:
    @BOUNDED
    @given(case=api[path][operation.method].as_strategy(GenerationMode.NEGATIVE))
    def ask(case: Case) -> None:
        case.call_and_validate(base_url=known.master.url, session=known.session, timeout=20)

    ask()
