"""Tests of the collectors, on plain values and on folders that the tests write."""
