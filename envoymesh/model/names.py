"""Names of hosts and services: what they may be."""

NAME = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"
"""A DNS label (RFC 1123) that starts with a letter, of at most 40 characters: it becomes a host name, part
of an Envoy cluster's name and of file names."""

NAME_RULE = "a name is lower-case letters, digits and hyphens, starts with a letter, 40 characters at most"
