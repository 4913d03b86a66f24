"""Tests of worker.collectors.custom."""
