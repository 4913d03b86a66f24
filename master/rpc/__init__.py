"""The gRPC door: streams of workers, and heartbeats one by one.

grpc runs on an asyncio loop in a native thread of its own (``server``); everything that the master knows lives on the
gevent hub (``session``). The two meet in one place (``bridge``), where what has arrived is handed over in batches.
"""
