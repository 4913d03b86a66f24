"""Runs tasks on this machine: attempts in containers, and their reports to the master.

Everything runs on one asyncio loop and reaches containers through ``engine.ContainerEngine``, so a real worker and
thousands of simulated ones run the same code.
"""
