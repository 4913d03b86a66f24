"""Tests of master.history."""
