"""How a host is reached: the only place that knows Fabric and Paramiko."""
