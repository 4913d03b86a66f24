"""Tests of master.edge."""
