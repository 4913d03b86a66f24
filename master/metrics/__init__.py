"""/metrics: the fleet as Prometheus reads it."""
