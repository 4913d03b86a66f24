"""A steady stream of submits and cancels. Clients retry with the same key after a broken connection."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import requests

from tests.chaos import history
from tests.chaos.history import Recorder, now
from tests.chaos.jobs import Job, request
from tests.chaos.plan import Submission
from tests.chaos.rest import RestClient

_CLIENTS = 16
_CPU_SHARE = 0.3
"""CPU share of a task. Three tasks fill a worker."""

_RETRY_SECONDS = 0.15
_LAST_ANSWER_SECONDS = 30.0


class Load:
    """Submits in the background, as a context manager. ``stop`` ends the stream and waits for open answers."""

    def __init__(self, client: RestClient, image: str, stream: Iterator[Submission], recorder: Recorder) -> None:
        self._client = client
        self._image = image
        self._stream = stream
        self._recorder = recorder
        self._cpu_cores = _CPU_SHARE * (os.cpu_count() or 1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self._clients = ThreadPoolExecutor(_CLIENTS, thread_name_prefix="client")
        self._work: list[Future[None]] = []
        self.acknowledged = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._clients.shutdown()

    def stop(self) -> None:
        """Raises the unexpected errors of the clients."""
        self._stopping.set()
        self._thread.join()
        for work in self._work:
            work.result(timeout=_LAST_ANSWER_SECONDS)

    def _run(self) -> None:
        for pause_seconds, job in self._stream:
            if self._stopping.wait(pause_seconds):
                return
            self._work.append(self._clients.submit(self._submit, job))

    def _submit(self, job: Job) -> None:
        self._recorder.add(history.SubmitSent(now(), job._asdict()))
        task_id = self._submit_until_answered(job)
        if task_id is None:
            return
        if job.submits_twice:
            self._submit_until_answered(job)
        if job.cancel_after_seconds is not None:
            self._stopping.wait(job.cancel_after_seconds)
            self._cancel(task_id)

    def _submit_until_answered(self, job: Job) -> str | None:
        body, headers = request(job, self._image, self._cpu_cores), {"Idempotency-Key": job.key}
        while True:
            try:
                answer = self._client.ask("POST", "/api/tasks", json=body, headers=headers)
            except requests.RequestException:
                if job.gives_up:
                    return None
            else:
                if answer.status_code in {200, 201}:
                    task_id = str(answer.json()["task_id"])
                    self._recorder.add(history.Acknowledged(now(), job.key, task_id))
                    self.acknowledged += answer.status_code == 201
                    return task_id
                if answer.status_code != 503:
                    self._record_unexpected("a submit", answer)
                    return None
            # Not the stop event: a submit is repeated until there is an answer.
            threading.Event().wait(_RETRY_SECONDS)

    def _cancel(self, task_id: str) -> None:
        self._recorder.add(history.CancelSent(now(), task_id))
        while True:
            try:
                answer = self._client.ask("DELETE", f"/api/tasks/{task_id}")
            except requests.RequestException:
                pass
            else:
                if answer.status_code == 202:
                    self._recorder.add(history.CancelAccepted(now(), task_id))
                elif answer.status_code not in {409, 503}:
                    self._record_unexpected("a cancel", answer)
                if answer.status_code != 503:
                    return
            threading.Event().wait(_RETRY_SECONDS)

    def _record_unexpected(self, what: str, answer: requests.Response) -> None:
        self._recorder.add(
            history.Anomaly(now(), f"{what} was answered with {answer.status_code}: {answer.text[:500]}")
        )
