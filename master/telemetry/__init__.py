"""The telemetry service: what a heartbeat becomes, who is alive, and who is told."""
