"""What must change on a host, why, and in which order: pure functions from observed to desired."""
