"""worker.docker_engine.progress"""

from fleetpulse.worker.docker_engine.progress import PullProgress

MEGABYTE = 1_000_000


def downloading(layer: str, current: int, total: int) -> dict[str, object]:
    return {"id": layer, "status": "Downloading", "progressDetail": {"current": current, "total": total}}


def test_layers_and_bytes_are_added_up() -> None:
    progress = PullProgress("busybox:1.37")
    assert str(progress) == "pulling busybox:1.37"
    progress.add({"status": "Pulling from library/busybox", "id": "1.37"})
    assert str(progress) == "pulling busybox:1.37"
    for layer in ("a", "b", "c"):
        progress.add({"id": layer, "status": "Pulling fs layer", "progressDetail": {}})
    assert str(progress) == "pulling busybox:1.37: 0 of 3 layers"
    progress.add(downloading("a", 10 * MEGABYTE, 50 * MEGABYTE))
    progress.add(downloading("b", 31 * MEGABYTE, 40 * MEGABYTE))
    assert str(progress) == "pulling busybox:1.37: 0 of 3 layers, 41 of 90 MB"
    progress.add({"id": "a", "status": "Pull complete", "progressDetail": {}})
    progress.add({"id": "c", "status": "Already exists", "progressDetail": {}})
    assert str(progress) == "pulling busybox:1.37: 2 of 3 layers, 81 of 90 MB"


def test_a_size_that_is_not_known_is_no_matter() -> None:
    progress = PullProgress("x")
    progress.add({"id": "a", "status": "Downloading"})
    progress.add(downloading("a", 5, 0))
    progress.add({"status": "Status: Downloaded newer image for x"})
    assert str(progress) == "pulling x: 0 of 1 layers"
