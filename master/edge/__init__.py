"""The HTTP edge, in front of the app: limits on connections, on slow clients and on request rates."""
