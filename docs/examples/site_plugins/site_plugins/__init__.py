"""Extensions of FleetPulse for a site."""
