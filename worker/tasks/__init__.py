"""Tasks on this machine: attempts in containers, and what the master is told of them.

Everything here runs on one asyncio loop and speaks to containers through ``engine.ContainerEngine``, so that a real
worker and thousands of simulated ones run the very same code.
"""
