"""The gRPC port: streams of workers, single heartbeats, and certificates for workers.

grpc runs on an asyncio loop in a native thread (``server``); the master's state lives on the gevent hub (``session``).
They meet in ``stream.HubBridge``, which hands over what has arrived in batches.
"""
