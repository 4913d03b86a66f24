"""The process on each machine of the fleet: reads the machine and tells the master, by outbound connections only."""
