"""Tests of master.web."""
