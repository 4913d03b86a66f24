"""Tests of master.store."""
