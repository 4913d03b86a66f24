"""Who may do what: roles, the tokens that give them, and where tokens are kept.

``roles`` and ``tokens`` are pure. ``token_file`` is what the command line writes; ``book`` is what a running master
looks into with every request.
"""
