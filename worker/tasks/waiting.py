"""Waiting for an event, and for no longer."""

import asyncio


async def happens_within(event: asyncio.Event, seconds: float | None) -> bool:
    """Whether it happened in that time; ``None`` waits for as long as it takes."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
