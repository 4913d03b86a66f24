"""Observers of a run: events of dockerd, tasks and workers from REST, open files of the processes."""

import threading
from collections.abc import Iterable
from typing import Any, Self

import docker
import psutil
import requests
from docker.errors import DockerException, NotFound

from tests.chaos import history
from tests.chaos.fleet import ChaosFleet
from tests.chaos.history import Recorder, now
from tests.chaos.rest import RestClient

LABEL = "fleetpulse."
_ACTIONS = ("create", "start", "die", "destroy")
_POLL_SECONDS = 0.4
_RECENT = 80
_SEEN = ("task_id", "status", "attempt", "worker_id", "exit_code")


class DockerObserver:
    """Records the events of dockerd for the containers of these workers, as a context manager."""

    def __init__(self, host: str, worker_ids: Iterable[str], recorder: Recorder) -> None:
        self._worker_ids = frozenset(worker_ids)
        self._recorder = recorder
        self._client = docker.DockerClient(host, timeout=30)
        self._inspector = docker.DockerClient(host, timeout=30)
        self._events: Any = None
        self._thread = threading.Thread(target=self._follow, name="docker-events")
        self._present: set[str] = set()
        self.running: dict[str, str] = {}
        """The running containers according to the events, with their workers."""

    def __enter__(self) -> Self:
        filters = {"type": "container", "event": list(_ACTIONS)}
        self._events = self._client.events(decode=True, filters=filters)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._events.close()
        self._thread.join()
        self._client.close()
        self._inspector.close()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def list_containers(self) -> dict[str, str]:
        """Records and returns the states of all containers of the fleet."""
        found = self._inspector.api.containers(all=True, filters={"label": f"{LABEL}worker_id"})
        states = {
            container["Id"]: container["State"]
            for container in found
            if container["Labels"].get(f"{LABEL}worker_id") in self._worker_ids
        }
        self._recorder.add(history.ContainerListing(now(), states))
        return states

    def has_seen_all_ends(self) -> bool:
        """Whether the events include the end of every container that is gone."""
        return self._present <= self.list_containers().keys()

    def _follow(self) -> None:
        for event in self._events:
            labels = event["Actor"]["Attributes"]
            if labels.get(f"{LABEL}worker_id") in self._worker_ids:
                self._take(event["Actor"]["ID"], event["Action"], event["timeNano"] / 1e9, labels)

    def _take(self, container_id: str, action: str, time: float, labels: dict[str, str]) -> None:
        exit_code = int(labels["exitCode"]) if action == "die" else None
        pid = self._pid_of(container_id) if action == "start" else None
        who = labels[f"{LABEL}task_id"], int(labels[f"{LABEL}attempt"]), labels[f"{LABEL}worker_id"]
        self._recorder.add(history.ContainerEvent(time, container_id, *who, action, exit_code, pid))
        if action == "start":
            self.running[container_id] = who[2]
        elif action != "create":
            self.running.pop(container_id, None)
        if action == "destroy":
            self._present.discard(container_id)
        else:
            self._present.add(container_id)

    def _pid_of(self, container_id: str) -> int | None:
        try:
            return int(self._inspector.api.inspect_container(container_id)["State"]["Pid"]) or None
        except NotFound:
            return None


class RestObserver:
    """Polls REST and counts open files, as a context manager."""

    def __init__(self, fleet: ChaosFleet, client: RestClient, recorder: Recorder) -> None:
        self._fleet = fleet
        self._client = client
        self._recorder = recorder
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rest-observer")
        self._seen: dict[str, dict[str, Any]] = {}
        self.round = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            self._count_files()
            try:
                workers = self._client.json("/workers")
                self._recorder.add(
                    history.WorkerListing(now(), {name: worker["is_active"] for name, worker in workers.items()})
                )
                self._see(self._client.json("/api/tasks", limit=_RECENT))
            except requests.RequestException:
                continue  # the master is down: an injected fault

    def _see(self, tasks: list[dict[str, Any]]) -> None:
        for task in tasks:
            seen = {name: task[name] for name in _SEEN}
            if self._seen.get(task["task_id"]) != seen:
                self._seen[task["task_id"]] = seen
                self._recorder.add(history.TaskObserved(now(), seen))

    def _count_files(self) -> None:
        for name, process in self._fleet.watched_processes():
            try:
                count = process.num_fds()
            except psutil.Error:
                continue
            self._recorder.add(history.OpenFiles(now(), self.round, name, process.pid, count))


def remove_containers(host: str, worker_ids: Iterable[str]) -> None:
    """Removes the containers that a run left on a shared engine."""
    client = docker.DockerClient(host, timeout=30)
    try:
        for worker_id in worker_ids:
            label = f"{LABEL}worker_id={worker_id}"
            for container in client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
                try:
                    container.remove(force=True)
                except DockerException:
                    continue  # it is already being removed
    finally:
        client.close()
