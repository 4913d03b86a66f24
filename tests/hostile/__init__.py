"""Clients that a master must survive, each in a process of its own, and one that must not notice them."""
