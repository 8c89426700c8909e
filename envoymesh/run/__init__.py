"""The only place that sequences I/O."""
