"""Edits of the inventory's text that touch the lines of one host or one setting, and no other. Pure."""

from ipaddress import IPv4Address

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node

from envoymesh.model.mesh import HostName, Mesh, ServiceName
from envoymesh.problems import Failed, Problem


def with_host(text: str, name: HostName, service: ServiceName, address: IPv4Address) -> str:
    """Return the inventory `text` with one more host, written like its siblings, after the last one of `service`."""
    entries = _host_entries(text)
    siblings = [e for e in entries if _scalar(e[1], "service") == service]
    key, value = (siblings or entries)[-1]
    indent = " " * key.start_mark.column
    if isinstance(value, MappingNode) and value.flow_style:
        new = [f"{indent}{name}: {{service: {service}, address: {address}}}\n"]
    else:
        inner = " " * _inner_column(key, value)
        new = [f"{indent}{name}:\n", f"{inner}service: {service}\n", f"{inner}address: {address}\n"]
    lines = text.splitlines(keepends=True)
    after = _last_line(value) + 1
    end = "\r\n" if lines[0].endswith("\r\n") else "\n"
    if not lines[-1].endswith("\n") and after == len(lines):
        lines[-1], new[-1] = lines[-1] + end, new[-1].removesuffix("\n")
    return "".join([*lines[:after], *(line.replace("\n", end) for line in new), *lines[after:]])


def without_host(text: str, name: HostName) -> str:
    """Return the inventory `text` without the lines of one host."""
    key, value = next(e for e in _host_entries(text) if e[0].value == name)
    lines = text.splitlines(keepends=True)
    before, after = lines[: key.start_mark.line], lines[_last_line(value) + 1 :]
    if not after and not lines[-1].endswith("\n"):
        before[-1] = before[-1].rstrip("\r\n")
    return "".join([*before, *after])


def with_release(text: str, service: ServiceName, release: str | None) -> str:
    """Return the inventory `text` with another release of a service; with None, it names none."""
    entry = next(value for key, value in _section(text, "services").value if key.value == service)
    at = next((i for i, (key, _) in enumerate(entry.value) if key.value == "release"), None)
    if at is None:
        return text if release is None else _with_setting(text, entry, f'release: "{release}"')
    value = entry.value[at][1]
    if release is not None:
        return f'{text[: value.start_mark.index]}"{release}"{text[value.end_mark.index :]}'
    start, end = _span_in_line(entry, at) if entry.flow_style else _span_of_lines(text, *entry.value[at])
    return text[:start] + text[end:]


def _with_setting(text: str, entry: MappingNode, setting: str) -> str:
    """Return the text with one more setting at the end of a mapping, on a line of its own where each has one."""
    key, value = entry.value[-1]
    last = value.end_mark.index
    if entry.flow_style:
        return f"{text[:last]}, {setting}{text[last:]}"
    line_end = _line_end(text, last)
    end = "\r\n" if "\r\n" in text else "\n"
    return f"{text[:line_end]}{end}{' ' * key.start_mark.column}{setting}{text[line_end:]}"


def _span_in_line(entry: MappingNode, at: int) -> tuple[int, int]:
    """Return where a setting of a mapping in braces begins and ends, with one of the commas beside it."""
    key, value = entry.value[at]
    if at:
        return entry.value[at - 1][1].end_mark.index, value.end_mark.index
    return key.start_mark.index, entry.value[1][0].start_mark.index


def _span_of_lines(text: str, key: Node, value: Node) -> tuple[int, int]:
    """Return where the lines of a setting begin and end, with the line's end before them."""
    begin = key.start_mark.index - key.start_mark.column
    before = len(text[:begin].removesuffix("\n").removesuffix("\r"))
    return before, _line_end(text, value.end_mark.index)


def _line_end(text: str, index: int) -> int:
    """Return where the line ends that `index` is in, before what ends it."""
    end = text.find("\n", index)
    return len(text) if end < 0 else end - (text[end - 1] == "\r")


def new_names(mesh: Mesh, service: ServiceName, count: int) -> list[HostName]:
    """Return `count` unused names SERVICE-N, the lowest numbers first."""
    numbered = (HostName(f"{service}-{n}") for n in range(1, len(mesh.hosts) + count + 1))
    return [name for name in numbered if name not in mesh.hosts][:count]


def new_addresses(mesh: Mesh, service: ServiceName, count: int) -> list[IPv4Address]:
    """Return `count` free addresses of the machines' network, those after the service's last host first.

    Raises:
        Failed: the network has no more.
    """
    taken = {h.address for h in mesh.hosts.values()}
    usable = list(mesh.machines.network.hosts())[1:]
    last = max((h.address for h in mesh.hosts_of(service)), default=usable[0])
    free = [a for a in usable if a not in taken]
    chosen = sorted(free, key=lambda address: (address < last, address))[:count]
    if len(chosen) < count:
        raise Failed(
            Problem(
                code="inventory/network-full",
                what=f"{mesh.machines.network} has {len(free)} free addresses, {count} are needed",
                at="inventory.yaml  machines.network",
                now="nothing was changed",
                hint="give machines.network more room, such as a /16",
            )
        )
    return chosen


def _section(text: str, name: str) -> MappingNode:
    root = YAML(typ="safe", pure=True).compose(text)
    found: MappingNode = next(value for key, value in root.value if key.value == name)
    return found


def _host_entries(text: str) -> list[tuple[Node, Node]]:
    hosts = _section(text, "hosts")
    if hosts.flow_style:
        raise Failed(
            Problem(
                code="inventory/layout",
                what="hosts on one line cannot be edited by this command",
                at=f"inventory.yaml:{hosts.start_mark.line + 1}:{hosts.start_mark.column + 1}  hosts",
                now="nothing was changed",
                hint="write each host on a line of its own below `hosts:`",
            )
        )
    return list(hosts.value)


def _scalar(node: Node, key: str) -> str | None:
    if not isinstance(node, MappingNode):
        return None
    return next((str(v.value) for k, v in node.value if k.value == key), None)


def _inner_column(key: Node, value: Node) -> int:
    is_block = isinstance(value, MappingNode) and value.value
    return int(value.value[0][0].start_mark.column) if is_block else int(key.start_mark.column) + 2


def _last_line(node: Node) -> int:
    """Return the 0-based line on which the node's text ends; a block's end mark lies beyond its comments."""
    if isinstance(node, MappingNode) and not node.flow_style and node.value:
        return max(_last_line(value) for _, value in node.value)
    mark = node.end_mark
    return int(mark.line if mark.column > 0 else max(mark.line - 1, node.start_mark.line))
