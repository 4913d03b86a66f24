"""Hostile clients, each in a process of its own, and a client that must not be affected by them."""
