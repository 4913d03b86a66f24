"""The parts of ``scheduler`` and ``explain``. Pure, so that they can run in a thread beside the hub.

records  what the fleet offers, what waits, what is decided
amounts  resources as whole numbers that can be compared and do not drift
fleet    what is left of the fleet while one round of placing goes on
"""
