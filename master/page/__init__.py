"""The page at ``/``: what it is made of, and how it is served."""
