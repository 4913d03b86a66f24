"""Tests of master.access."""
