"""Tests of master.gate."""
