"""Who waits for news of a task: the readers that follow a log."""

from collections import defaultdict
from types import TracebackType
from typing import Self

from gevent.event import Event


class TaskWatch:
    """One reader's wait, from ``with`` until its end."""

    def __init__(self, watches: "TaskWatchers", task_id: str) -> None:
        self._watches = watches
        self._task_id = task_id
        self._news = Event()

    def wait(self, timeout_seconds: float) -> bool:
        """Whether the task or its log has changed since the last wait, or does so before the timeout."""
        has_news = bool(self._news.wait(timeout_seconds))
        self._news.clear()
        return has_news

    def notify(self) -> None:
        """There is news."""
        self._news.set()

    def __enter__(self) -> Self:
        self._watches.add(self._task_id, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watches.remove(self._task_id, self)


class TaskWatchers:
    """The open watches by task id."""

    def __init__(self) -> None:
        self._by_task: defaultdict[str, set[TaskWatch]] = defaultdict(set)

    def __len__(self) -> int:
        return sum(map(len, self._by_task.values()))

    def notify(self, task_id: str) -> None:
        """The task or its log has changed, and that is durable."""
        for watch in self._by_task.get(task_id, ()):
            watch.notify()

    def add(self, task_id: str, watch: TaskWatch) -> None:
        self._by_task[task_id].add(watch)

    def remove(self, task_id: str, watch: TaskWatch) -> None:
        self._by_task[task_id].discard(watch)
        if not self._by_task[task_id]:
            del self._by_task[task_id]
