"""The REST door: JSON for curl, errors as RFC 9457 problems."""
