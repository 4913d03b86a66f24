"""Tests of master.metrics."""
