"""The part of an attempt's output that is kept: its beginning, with a mark where it was cut."""


def cut_mark(limit_bytes: int) -> bytes:
    """What stands where the output was cut."""
    return f"\n[fleetpulse: output is cut here, {limit_bytes} bytes are kept]\n".encode()


class CappedOutput:
    """Bytes as they were written in, bytes that are kept out; the mark counts towards the limit.

    What comes out depends only on what went in, not on how it was divided. So one that reads the output anew, after a
    restart or a stream that broke, comes to the very same bytes, and ``skip_bytes`` of them that are known already are
    left out.
    """

    def __init__(self, limit_bytes: int, skip_bytes: int = 0) -> None:
        self._limit = limit_bytes
        self._mark = cut_mark(limit_bytes)[:limit_bytes]
        self._skip = skip_bytes
        self._taken = 0
        self._held = b""
        self.is_cut = False
        """There was more than is kept; whatever comes now is dropped."""

    def feed(self, data: bytes) -> bytes:
        """What is to be kept of these. Bytes that may have to give way to the mark are held back."""
        if self.is_cut:
            return b""
        data = self._held + data
        safe = self._limit - len(self._mark)
        if self._taken + len(data) > self._limit:
            self.is_cut = True
            self._held = b""
            return self._pass(data[: max(safe - self._taken, 0)] + self._mark)
        keep = max(safe - self._taken, 0)
        self._held = data[keep:]
        return self._pass(data[:keep])

    def finish(self) -> bytes:
        """The output has come to its end: what was held back."""
        held, self._held = self._held, b""
        return self._pass(held)

    def _pass(self, data: bytes) -> bytes:
        self._taken += len(data)
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        return data[skipped:]
