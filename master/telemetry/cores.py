"""The readings of one core, which a worker sends only while somebody asks for them."""

from typing import Annotated

from msgspec import Meta, Struct


class Core(Struct, frozen=True, gc=False):
    """A logical core. Its use is since the previous reading, and null in the first."""

    core: Annotated[int, Meta(ge=0)]
    usage_percent: Annotated[float, Meta(ge=0, le=100)] | None = None
    frequency_hertz: Annotated[float, Meta(ge=0)] | None = None
