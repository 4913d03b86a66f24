"""``tasks.engine.ContainerEngine`` for Docker. Docker's Python SDK blocks, so it is called in threads."""
