"""``tasks.engine.ContainerEngine`` by Docker's Python SDK, whose calls block: they are made in threads of their own."""
