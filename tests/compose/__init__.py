"""The stack that docker-compose.yml starts: its files, and a run of it."""
