"""What runs on the hub."""

import gc

import gevent


def living_greenlets(name: str) -> list[str]:
    """The names of those that begin so and have not ended, sorted."""
    gc.collect()
    greenlets = [item for item in gc.get_objects() if isinstance(item, gevent.Greenlet)]
    return sorted(greenlet.name for greenlet in greenlets if greenlet.name.startswith(name) and not greenlet.dead)
