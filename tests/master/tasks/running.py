"""A task service with a real store, in a folder of its own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetpulse.master.instruments import Instruments
from fleetpulse.master.store.database import default_url
from fleetpulse.master.store.encryption import Encryptor
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.tasks.service import TaskService
from tests.master.fleet import Fleet
from tests.master.store.encryptor import ENCRYPTOR
from tests.master.store.tables import make_tables


@contextmanager
def running_store(folder: Path, encryptor: Encryptor = ENCRYPTOR) -> Iterator[SqlTaskStore]:
    """SQLite in the folder."""
    make_tables(default_url(folder))
    store = SqlTaskStore(default_url(folder), encryptor, Instruments().store)
    store.start()
    try:
        yield store
    finally:
        store.stop()


@contextmanager
def running_tasks(fleet: Fleet) -> Iterator[TaskService]:
    """Tasks of a fleet, on its clock."""
    with tempfile.TemporaryDirectory() as folder, running_store(Path(folder)) as store:
        tasks = TaskService(store, fleet.manager, fleet.instruments, fleet.clock.port)
        fleet.manager.add_observer(tasks.reports)
        tasks.start()
        try:
            yield tasks
        finally:
            tasks.stop()
