"""What a host must have: one pure function (host, mesh, …) → resources per role."""
