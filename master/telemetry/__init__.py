"""The telemetry service: the live table of the fleet."""
