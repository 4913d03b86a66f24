"""A Prometheus that scrapes this master, asked for what it remembers longer than the store does."""
