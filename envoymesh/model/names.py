"""Names of hosts and services: what they may be."""

NAME = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"
"""A DNS label (RFC 1123) that starts with a letter, of at most 40 characters: it becomes a host name, part
of an Envoy cluster's name and of file names."""

NAME_RULE = "a name is lower-case letters, digits and hyphens, starts with a letter, 40 characters at most"

RELEASE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What a release may be called: it is a folder's name, and stands in the inventory and in messages."""

RELEASE_RULE = "a release is letters, digits, `.`, `_` and `-`, starts with a letter or a digit, 64 characters at most"
