"""docker-compose.yml: its files, and a run of the stack."""
