"""Scripts out, frames in: what is said to a host and how its answers are read. Pure."""
