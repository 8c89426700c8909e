"""The ports that are the same on every host. What the front listens on is in the inventory."""

ADMIN_PORT = 8001
"""Envoy's admin interface, on 127.0.0.1."""

SIDECAR_PORT = 8000
"""The sidecar, on the host's mesh address."""

APP_PORT = 8080
"""The application, on an address of the loopback that follows from its release."""

HEALTH_PATH = "/healthz"
"""Where an application answers 200 while it serves, which the front asks through the sidecar; and where the front
itself does, for those who send it clients. No service can have this path."""
