"""The worker's certificate: how it gets one, keeps it, and renews it while it runs."""
