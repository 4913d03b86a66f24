"""A log is bytes; what is shown of it is text. Where to cut, so that no character and no line is torn."""


def whole_characters(data: bytes) -> int:
    """How many of the bytes are whole UTF-8 characters, leaving out one that begins at the end and goes on after it."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0b1100_0000 != 0b1000_0000:  # not a continuation: a character begins here
            return len(data) - back if _length(byte) > back else len(data)
    return len(data)


def torn_bytes(data: bytes) -> int:
    """How many bytes at the start belong to a character that began before."""
    torn = 0
    while torn < min(3, len(data)) and data[torn] & 0b1100_0000 == 0b1000_0000:
        torn += 1
    return torn


def last_lines(data: bytes, lines: int) -> int:
    """Where the last so many lines begin. The last one need not have ended."""
    start = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(lines):
        start = data.rfind(b"\n", 0, start)
        if start < 0:
            return 0
    return start + 1


def decoded(data: bytes) -> str:
    """The text; what is not UTF-8 becomes U+FFFD."""
    return data.decode("utf-8", "replace")


def _length(first_byte: int) -> int:
    if first_byte >= 0b1111_0000:
        return 4
    if first_byte >= 0b1110_0000:
        return 3
    return 2 if first_byte >= 0b1100_0000 else 1
