"""What this site adds to FleetPulse."""
