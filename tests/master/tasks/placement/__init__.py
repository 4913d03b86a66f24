"""Tests of master.tasks.placement."""
