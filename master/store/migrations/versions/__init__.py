"""One module a change of the schema; ``down_revision`` names the one before."""
