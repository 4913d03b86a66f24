"""``/telemetry/stream``: the fleet as server-sent events, first as it is and then what changes."""

import re
import uuid
from collections.abc import Mapping
from functools import partial

import falcon

from fleetpulse.master.api.event_stream import begin_events
from fleetpulse.master.api.followers import ClientIdentity, Subscribers
from fleetpulse.master.api.queries import StreamQuery, query_of
from fleetpulse.master.api.stream_events import EventEncoder, Member
from fleetpulse.master.api.stream_reader import Shared, Start, StreamReader
from fleetpulse.master.api.stream_rounds import Broadcaster, Timing
from fleetpulse.master.api.views import FleetViews, StreamSummaries
from fleetpulse.master.instruments.stream import StreamInstruments
from fleetpulse.master.telemetry.change_log import ChangeLog
from fleetpulse.master.telemetry.manager import TelemetryManager

MAX_READERS = 500
"""Each holds a connection and a greenlet."""

_EVENT_ID = re.compile(r"([0-9a-f]{1,32})-([0-9]{1,18})")


class TelemetryStream:
    """The resource. ``members`` makes a worker's JSON, by the form that ``fields`` asks for."""

    def __init__(
        self,
        changes: ChangeLog,
        members: Mapping[str, Member],
        instruments: StreamInstruments,
        readers: Subscribers,
        boot_id: str,
        timing: Timing = Timing(),  # noqa: B008 - immutable
    ) -> None:
        self._changes = changes
        self._boot_id = boot_id
        self._composers = {form: EventEncoder(boot_id, member) for form, member in members.items()}
        self._shared = Shared(
            changes,
            Broadcaster(changes, self._composers.values(), timing, instruments.readers_cut.inc),
            readers,
            timing.heartbeat,
            lambda kind: instruments.events.labels(kind).inc(),
        )
        instruments.readers.set_function(partial(len, readers))

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        query = query_of(req, StreamQuery)
        begin_events(resp)
        if req.method == "HEAD":
            return
        resp.stream = StreamReader(
            self._shared,
            self._composers[query.fields],
            self._start(req.get_header("Last-Event-ID")),
            query.worker_id or None,
            req.env.get("gunicorn.socket"),
            ClientIdentity.of(req),
        )

    on_head = on_get

    def _start(self, last_event_id: str | None) -> Start:
        """An id that is not of this start of the master is no error: the reader was there before a restart."""
        if not last_event_id:
            return Start(None, "start")
        match = _EVENT_ID.fullmatch(last_event_id)
        if match is None or match[1] != self._boot_id or int(match[2]) > self._changes.revision:
            return Start(None, "unknown_id")
        return Start(int(match[2]))


def stream_resources(
    telemetry: TelemetryManager, views: FleetViews, instruments: StreamInstruments, followers: Subscribers
) -> dict[str, object]:
    """The path of the stream, which observes the table from now on: to be built before there is any worker.

    Its readers end with the followers.
    """
    changes, summaries = ChangeLog(), StreamSummaries()
    for observer in (summaries, changes):
        telemetry.add_observer(observer)
    members = {"all": views.member, "summary": summaries.member}
    readers = followers.group(MAX_READERS, "read the stream")
    stream = TelemetryStream(changes, members, instruments, readers, uuid.uuid4().hex[:12])
    return {"/telemetry/stream": stream}
