"""The application that runs beside every sidecar: one aiohttp server on the loopback."""
