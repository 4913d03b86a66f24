"""Tests of master.telemetry."""
