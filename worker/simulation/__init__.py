"""A fleet that is not there: simulated machines behind the real session code, over the real wire."""
