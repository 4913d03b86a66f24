"""Tests of the whole: real processes on free ports of 127.0.0.1."""
