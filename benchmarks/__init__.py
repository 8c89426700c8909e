"""The benchmark: how long provisioning takes and how much it needs, beside peers that do the same work."""
