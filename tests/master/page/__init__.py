"""Tests of master.page."""
