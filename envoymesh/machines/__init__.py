"""How hosts come to exist: vagrant, nspawn, or already there. No module here knows what a host is for."""
