"""Tests of the command line for people."""
