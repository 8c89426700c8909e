"""What a host can be asked to have: one class per kind, plain data, no I/O.

Every resource has an `address`, `kind:name`, that is stable, unique on its host and shown in every message.
"""

from envoymesh.resources.artifact import Artifact, EnvoyBinary, Platform, PythonPackages, Source, Tree
from envoymesh.resources.effect import Effect
from envoymesh.resources.file import Directory, File, Reader
from envoymesh.resources.unit import Probe, Unit
from envoymesh.resources.user import User
from envoymesh.resources.validation import Validation

Resource = User | Directory | File | Artifact | Unit | Validation

__all__ = [
    "Artifact",
    "Directory",
    "Effect",
    "EnvoyBinary",
    "File",
    "Platform",
    "Probe",
    "PythonPackages",
    "Reader",
    "Resource",
    "Source",
    "Tree",
    "Unit",
    "User",
    "Validation",
]
