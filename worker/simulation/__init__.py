"""Simulated machines that run the real session code over the real wire."""
