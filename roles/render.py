"""Templates: Jinja2 with nothing undefined, and YAML read back."""

import hashlib
import json
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket
from typing_extensions import override

TEMPLATES = Path(__file__).parent.parent / "templates"


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the environment of the project's templates: an undefined name is an error, blocks leave no blank lines.

    Values go into YAML by the filter `tojson`, so that no value can become structure.
    """
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
        autoescape=False,  # noqa: S701 - YAML and unit files, no HTML
    )
    made.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return made


class _Kept(FileSystemBytecodeCache):
    @override
    def dump_bytecode(self, bucket: Bucket) -> None:
        with suppress(OSError):  # what cannot be kept is compiled again
            super().dump_bytecode(bucket)


def keep_compiled(folder: Path) -> None:
    """Find compiled templates again in `folder`, and keep them there: to compile them takes longer than all else here.

    Nobody else may be able to write there: what is kept is Python's.
    """
    environment().bytecode_cache = _Kept(str(folder))


def render(template: str, **values: Any) -> str:
    """Return the text of `template` (a path inside templates/)."""
    return environment().get_template(template).render(**values)


def stamped(resources: str) -> tuple[str, str]:
    """Return an xDS file made of the YAML list `resources`, and the version that it carries: its content's hash.

    Envoy reports the version of what it has loaded, which is how a push is confirmed.
    """
    version = hashlib.sha256(resources.encode()).hexdigest()[:16]
    return f'version_info: "{version}"\n{resources}', version


@lru_cache(maxsize=1024)
def _parsed(text: str) -> str:
    yaml = import_module("ruamel.yaml")  # only a host that is to change needs it
    return json.dumps(yaml.YAML(typ="safe", pure=True).load(text))


def parsed(text: str) -> Any:
    """Return the data in a YAML document; the same text is parsed once, and every caller has its own copy."""
    return json.loads(_parsed(text))
