"""The gRPC door: streams of workers, and heartbeats one by one."""
