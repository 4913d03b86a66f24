"""Tests of master.prometheus."""
