"""One collector, one file: each reads one kind of fact about this machine. Nothing registers itself."""
