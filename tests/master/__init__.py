"""Tests of master."""
