"""The REST API and the page: JSON, server-sent events, and errors as RFC 9457 problems."""
