"""Tests of master.api."""
