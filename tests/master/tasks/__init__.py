"""Tests of master.tasks."""
