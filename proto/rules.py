"""What the contract demands beyond what protobuf can express. Both ends enforce it; nothing here does I/O.

A worker_id is a label value on ``/metrics``, a path segment in REST and a word at a prompt, so it is kept to characters
that need no escaping in any of them.
"""

import re

WORKER_ID_MAX_LENGTH = 128

WORKER_ID_RULE = (
    f"1 to {WORKER_ID_MAX_LENGTH} characters, each an ASCII letter, a digit, '.', '_' or '-', "
    "and the first one a letter or a digit"
)

_WORKER_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{WORKER_ID_MAX_LENGTH - 1}}}", re.ASCII)

MAX_MESSAGE_BYTES = 1024 * 1024
"""The largest message that either end accepts; a heartbeat of a machine with 16 GPUs is under 8 KiB."""


def is_worker_id(text: str) -> bool:
    """Whether ``text`` is a well-formed worker id; the rule in words is ``WORKER_ID_RULE``."""
    return _WORKER_ID.fullmatch(text) is not None
