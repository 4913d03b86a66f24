"""The same samples in prometheus_client, in a separate process, and in the Pushgateway.

The fleet is stopped first, so the peers have the whole machine, unlike the master.
"""

import http.client
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

from tests.bench.client import Answer, fetch, fetch_repeatedly, percentile
from tests.bench.exposition import fleet_families
from tests.bench.processes import ROOT, BenchError, Child, Command, find_tool, running, wait_until
from tests.ports import LOCALHOST, free_port

_LATEST_SECONDS = 300.0
_GATEWAY_SECONDS = 60.0
_UNCHECKED = "--push.disable-consistency-check"
_UNCHECKED_PUSHES = 2_000
_CHECKED_SECONDS = 15.0
_CHECKED_PUSHES = 50
_ACCEPTED = (http.HTTPStatus.OK, http.HTTPStatus.ACCEPTED)
"""The statuses of a checked push and of a queued one."""

_QUEUE_SECONDS = 1.0
_GROUP = "/metrics/job/fleetpulse/worker_id/"


def measure_latest(text: str, folder: Path, fetches: int) -> dict[str, float | None]:
    """Measures ``prometheus_client`` with the samples of the workers in ``text``."""
    exposition = folder / "metrics.txt"
    exposition.write_text(text)
    port = free_port()
    command: Command = [sys.executable, "-m", "tests.bench.latest", exposition, str(port)]
    with running("latest", command, folder, cwd=ROOT) as process:
        wait_until(lambda: process.last_output != "", _LATEST_SECONDS, "generate_latest has no end", process)
        figures = json.loads(process.last_output)
        fetched = fetch_repeatedly(port, "/metrics", fetches)
        _require_same_samples(text, fetched.last)
        return {
            "latest_p50_seconds": figures["p50_seconds"],
            "latest_get_p50_seconds": percentile(fetched.seconds, 50),
            "latest_bytes": fetched.last.sent_bytes,
            "latest_rss_bytes": process.usage().rss_bytes,
        }


def measure_gateway(text: str, folder: Path, fetches: int) -> dict[str, float | None]:
    """Measures the Pushgateway with a group for every worker, which pushes its own samples.

    It is filled by pushes without consistency checks, then restarted from its file with default settings: the time of
    checked pushes grows with the square of the number of groups.
    """
    groups = _groups(text)
    kept = folder / "pushgateway.data"
    kept.unlink(missing_ok=True)
    with _gateway(folder, kept, _UNCHECKED) as (process, port):
        _push(port, groups, len(groups), _GATEWAY_SECONDS)
        unchecked = _cpu_seconds_per_push(process, port, groups, max(_UNCHECKED_PUSHES, len(groups)), _GATEWAY_SECONDS)
    with _gateway(folder, kept) as (process, port):
        fetched = fetch_repeatedly(port, "/metrics", fetches)
        _require_same_samples(text, fetched.last)
        rss_bytes = process.usage().rss_bytes
        checked = _cpu_seconds_per_push(process, port, groups, _CHECKED_PUSHES, _CHECKED_SECONDS)
    return {
        "gateway_get_p50_seconds": percentile(fetched.seconds, 50),
        "gateway_bytes": fetched.last.sent_bytes,
        "gateway_rss_bytes": rss_bytes,
        "gateway_push_cpu_seconds": checked,
        "gateway_unchecked_push_cpu_seconds": unchecked,
    }


@contextmanager
def _gateway(folder: Path, kept: Path, *flags: str) -> Iterator[tuple[Child, int]]:
    port = free_port()
    command: Command = [
        find_tool("prometheus-pushgateway"), f"--web.listen-address={LOCALHOST}:{port}", f"--persistence.file={kept}",
        *flags,
    ]  # fmt: skip
    with running("pushgateway", command, folder) as process:
        wait_until(lambda: _answers(port), _GATEWAY_SECONDS, "the Pushgateway does not answer", process)
        yield process, port


def _answers(port: int) -> bool:
    try:
        return fetch(port, "/-/ready").status == 200
    except OSError:
        return False


def _groups(text: str) -> dict[str, bytes]:
    """The body of each worker's push, by worker id. The body omits the id, which is in the path as the group."""
    lines: dict[str, list[str]] = {}
    for family in fleet_families(text):
        headers = f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
        begun = set()
        for sample in family.samples:
            worker_id = sample.labels["worker_id"]
            body = lines.setdefault(worker_id, [])
            if worker_id not in begun:
                begun.add(worker_id)
                body.append(headers)
            line = sample.line.replace(f'worker_id="{worker_id}"', "", 1).replace("{,", "{", 1).replace("{}", "", 1)
            body.append(f"{line}\n")
    return {worker_id: "".join(body).encode() for worker_id, body in lines.items()}


def _cpu_seconds_per_push(process: Child, port: int, groups: Mapping[str, bytes], pushes: int, seconds: float) -> float:
    before = process.usage().cpu_seconds
    done = _push(port, groups, pushes, seconds)
    # Unchecked pushes are answered before they are stored.
    time.sleep(_QUEUE_SECONDS)
    return (process.usage().cpu_seconds - before) / done


def _push(port: int, groups: Mapping[str, bytes], pushes: int, seconds: float) -> int:
    """Pushes the groups in rounds. Returns the number of pushes in the given time."""
    deadline = time.monotonic() + seconds
    connection = http.client.HTTPConnection(LOCALHOST, port, timeout=seconds)
    try:
        for done, (worker_id, body) in enumerate(cycle(groups.items())):
            if done >= pushes or (done >= 5 and time.monotonic() > deadline):
                return done
            connection.request("PUT", _GROUP + worker_id, body)
            answer = connection.getresponse()
            words = answer.read()
            if answer.status not in _ACCEPTED:
                raise BenchError(f"the Pushgateway refused a push: {answer.status} {words[:300]!r}")
    finally:
        connection.close()
    raise BenchError("there is nothing to push")


def _require_same_samples(text: str, answer: Answer) -> None:
    """Raises ``BenchError`` unless the peer exposes as many samples of workers as the master."""
    ours, theirs = _count_samples(text), _count_samples(answer.body.decode())
    if ours != theirs:
        raise BenchError(f"a peer shows {theirs} samples where the master shows {ours}")


def _count_samples(text: str) -> int:
    # The Pushgateway adds two samples to every group.
    return sum('worker_id="' in line and not line.startswith("push_") for line in text.splitlines())
