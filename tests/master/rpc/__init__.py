"""Tests of master.rpc."""
