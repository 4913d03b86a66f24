"""Prometheus' text format, as commands and files give it. Pure."""

from collections.abc import Iterator
from typing import TextIO, cast

from prometheus_client.parser import text_fd_to_metric_families

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.custom.wire import BadMetrics, to_wire

MAX_TEXT_BYTES = 64 * 1024
"""Of one file, or of what one command prints. The parser takes tens of milliseconds for that."""

MAX_LINE_LENGTH = 4096
"""Longer lines could keep all rules only with descriptions that nobody reads; the parser is slow with them."""


def metrics_from_text(text: bytes) -> list[pb.CustomMetric]:
    """What the text says. Raises ``BadMetrics`` with the line where there is one.

    The last line must end, as the format wants it: a text that was cut off could end in half of a number.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise BadMetrics(f"more than {MAX_TEXT_BYTES} bytes")
    if text and not text.endswith(b"\n"):
        raise BadMetrics("the last line has no end, so the text may be cut off")
    lines = _Lines(text)
    try:
        # The parser only walks over its file.
        return to_wire(text_fd_to_metric_families(cast("TextIO", lines)))
    except BadMetrics as error:
        raise BadMetrics(f"{error} (by line {lines.number})") from error
    except Exception as error:
        said = f": {error}" if str(error) else ""
        raise BadMetrics(f"line {lines.number} is not Prometheus' text format{said}") from error


class _Lines:
    """Counts the lines that were taken."""

    def __init__(self, text: bytes) -> None:
        self.number = 0
        self._text = text

    def __iter__(self) -> Iterator[str]:
        for line in self._text.split(b"\n"):
            self.number += 1
            if len(line) > MAX_LINE_LENGTH:
                raise BadMetrics(f"a line of more than {MAX_LINE_LENGTH} bytes")
            yield line.decode()
