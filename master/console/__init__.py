"""The command line for people: a client of the master's REST, which knows nothing of the master's inside."""
