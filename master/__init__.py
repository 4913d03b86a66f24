"""The master: keeps the latest telemetry of every worker and shows it to people and to Prometheus."""
