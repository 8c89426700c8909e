"""The command line. What the tasks do is in `envoymesh/cli.py`, loaded when one runs: listing them stays quick."""

import gc
from collections.abc import Callable
from functools import partial, wraps
from importlib import import_module
from inspect import signature
from types import ModuleType
from typing import Any, cast

from invoke import Context, Exit, task

from envoymesh.suggest import suggest_on_parse_errors

suggest_on_parse_errors()

INVENTORY = "path of the inventory"
PROVIDER = "vagrant, nspawn or existing; otherwise what made the machines, else the inventory's choice"
LIMIT = "hosts, services, `edge`, globs such as 'front-*', or @failed for what the last run has not done; with commas"
MESSAGE = "what it is for: kept on the hosts, and shown by `history` and `audit`"
LOCK_WAIT = "seconds to wait for another operator's lock, such as 300 or 5m; otherwise it is a problem at once"
TIMEOUT = "seconds that a login to a host may take; otherwise as the inventory or ~/.ssh/config says, else 10"
JSON = "print one JSON document instead of text"
HOST = "name of the host"
ROLLOUT = {
    "max_parallel": "hosts of a service that change at a time, a number or a share such as 25%",
    "canary": "hosts that change before all others",
    "max_failed": "hosts that may fail before no other one is begun",
}
TELLS = {"quiet": "print only the answer and problems", "verbose": "print a line for every step"}

Body = Callable[..., partial[int]]


def command(name: str | None = None, *, tells: bool = False, **help_texts: str) -> Callable[[Body], Any]:
    """Return a decorator that makes a task of a function that returns the work to do: it fails with its exit code.

    A task that `tells` what it is doing has flags for how much, and its work gets the terminal that shows it.
    """

    def decorate(body: Body) -> Any:
        @wraps(body)
        def run(*args: Any, quiet: bool = False, verbose: bool = False, **kwargs: Any) -> None:
            cli, asked = _loaded(), body(*args, **kwargs)
            named = {name: kwargs[name] for name in ("json", "inventory") if name in kwargs}
            terminal = cli.Terminal(**named, quiet=quiet, verbose=verbose)
            code = cli.guarded(partial(asked, terminal=terminal) if tells else asked, terminal)
            if code:
                raise Exit(code=int(code))

        if tells:
            shown = signature(body)
            flags = [
                parameter
                for parameter in signature(run, follow_wrapped=False).parameters.values()
                if parameter.name in TELLS
            ]
            run.__signature__ = shown.replace(parameters=[*shown.parameters.values(), *flags])  # type: ignore[attr-defined]
        return task(name=name, auto_shortflags=False, help=help_texts | (TELLS if tells else {}))(run)

    return decorate


def work(name: str, *args: Any, **kwargs: Any) -> partial[int]:
    """Return a call of a function of `envoymesh.cli`."""
    return partial(cast("Callable[..., int]", getattr(_loaded(), name)), *args, **kwargs)


def _loaded() -> ModuleType:
    """Return `envoymesh.cli`; nothing of what is loaded is garbage, and to look for some takes a tenth of the time."""
    gc.disable()
    try:
        import_module("envoymesh.later").load_later()
        return import_module("envoymesh.cli")
    finally:
        gc.freeze()
        gc.enable()


@command(tells=True, provider=PROVIDER, lock_wait=LOCK_WAIT, inventory=INVENTORY)
def up(c: Context, provider: str = "", lock_wait: str = "", inventory: str = "inventory.yaml") -> partial[int]:
    """Make the machines, provision them, and check that the mesh works.

    Example: ./mesh up --provider nspawn
    """
    return work("up", inventory, provider, lock_wait)


@command(tells=True, inventory=INVENTORY)
def down(c: Context, inventory: str = "inventory.yaml") -> partial[int]:
    """Destroy the machines that were made for this mesh, and nothing else.

    Example: ./mesh down
    """
    return work("down", inventory)


@command(
    tells=True,
    limit=LIMIT,
    out="file to keep the plan in, for `provision --plan`",
    timeout=TIMEOUT,
    json=JSON,
    inventory=INVENTORY,
)
def plan(  # noqa: PLR0913, PLR0917 - one parameter for each flag
    c: Context,
    limit: str = "",
    out: str = "",
    timeout: str = "",
    json: bool = False,
    inventory: str = "inventory.yaml",
) -> partial[int]:
    """Show what provision would change, why, in which order and to what effect, with diffs.

    Exit code 0: nothing, 2: something, 4: a host is out of reach, 1: a problem.

    Example: ./mesh plan --limit service1

    Example: ./mesh plan --out tonight.json
    """
    return work("plan", inventory, limit, out, timeout)


@command(
    tells=True,
    limit=LIMIT,
    plan="file that `plan --out` has kept: make that so and nothing else, or refuse if a host has moved since",
    message=MESSAGE,
    lock_wait=LOCK_WAIT,
    timeout=TIMEOUT,
    **ROLLOUT,
    json=JSON,
    inventory=INVENTORY,
)
def provision(  # noqa: PLR0913, PLR0917 - one parameter for each flag
    c: Context,
    limit: str = "",
    plan: str = "",
    message: str = "",
    lock_wait: str = "",
    timeout: str = "",
    max_parallel: str = "",
    canary: str = "",
    max_failed: str = "",
    json: bool = False,
    inventory: str = "inventory.yaml",
) -> partial[int]:
    """Make all hosts as the inventory says.

    A host that is so already is only read. Hosts that serve change in batches, as `rollout` in the
    inventory says; one that is not healthy afterwards, as the front sees it, gets back what it had.

    Exit code 0: done, 1: a host failed, 4: a host is out of reach.

    Example: ./mesh provision --limit 'front-*'

    Example: ./mesh provision --plan tonight.json
    """
    rollout = {"max_parallel": max_parallel, "canary": canary, "max_failed": max_failed}
    writing = {"message": message, "lock_wait": lock_wait, "timeout": timeout}
    return work("provision", inventory, limit, plan, writing, rollout)


@command(
    tells=True,
    service="the service that gets another release",
    from_="folder with the release's code; otherwise the project's `service/`",
    release="its name: one that this box keeps, or with --from a new one; otherwise a digest of the code",
    message=MESSAGE,
    lock_wait=LOCK_WAIT,
    timeout=TIMEOUT,
    **ROLLOUT,
    json=JSON,
    inventory=INVENTORY,
)
def deploy(  # noqa: PLR0913, PLR0917 - one parameter for each flag
    c: Context,
    service: str,
    from_: str = "",
    release: str = "",
    message: str = "",
    lock_wait: str = "",
    timeout: str = "",
    max_parallel: str = "",
    canary: str = "",
    max_failed: str = "",
    json: bool = False,
    inventory: str = "inventory.yaml",
) -> partial[int]:
    """Bring another release of a service's application to its hosts, without a lost request.

    It starts beside the one that serves, which goes when it is ready and has finished its
    requests. If a host is not healthy with it, as the front sees it, all get back what they had,
    and so does the inventory.

    Exit code 0: done, 1: a host failed, 4: a host is out of reach.

    Example: ./mesh deploy service1 --from ../shop

    Example: ./mesh deploy service1 --release 3f1c0a9be72d
    """
    rollout = {"max_parallel": max_parallel, "canary": canary, "max_failed": max_failed}
    writing = {"message": message, "lock_wait": lock_wait, "timeout": timeout}
    return work("deploy", inventory, service, {"folder": from_, "name": release}, writing, rollout)


@command(limit=LIMIT, json=JSON, inventory=INVENTORY)
def history(c: Context, limit: str = "", json: bool = False, inventory: str = "inventory.yaml") -> partial[int]:
    """Show what earlier runs made of the hosts: when, who, why, what.

    A host keeps its last five states.

    Exit code 0: all were read, 4: a host is out of reach, 1: a problem.

    Example: ./mesh history --limit front-envoy
    """
    return work("history", inventory, limit, json=json)


@command(limit=LIMIT, last="how many lines to show, the last one first", json=JSON, inventory=INVENTORY)
def audit(
    c: Context, limit: str = "", last: int = 50, json: bool = False, inventory: str = "inventory.yaml"
) -> partial[int]:
    """Show every change that was made or tried on the hosts, in the order of time.

    Exit code 0: all were read, 4: a host is out of reach, 1: a problem.

    Example: ./mesh audit --limit front-envoy --last 10
    """
    return work("audit", inventory, limit, last, json=json)


@command(
    tells=True,
    limit=LIMIT,
    to="the name of a run, as `history` shows it; otherwise the state before the last run",
    message=MESSAGE,
    lock_wait=LOCK_WAIT,
    timeout=TIMEOUT,
    json=JSON,
    inventory=INVENTORY,
)
def rollback(  # noqa: PLR0913, PLR0917 - one parameter for each flag
    c: Context,
    limit: str = "",
    to: str = "",
    message: str = "",
    lock_wait: str = "",
    timeout: str = "",
    json: bool = False,
    inventory: str = "inventory.yaml",
) -> partial[int]:
    """Make the hosts as they were before the last run, or as another run left them.

    The inventory stays as it is: `plan` shows what it would change again, `provision` changes it.

    Exit code 0: done, 1: a host failed, 4: a host is out of reach.

    Example: ./mesh rollback

    Example: ./mesh rollback --limit service1 --to 20260131T094502Z-3fa9
    """
    return work("rollback", inventory, limit, to, {"message": message, "lock_wait": lock_wait, "timeout": timeout})


@command(tells=True, limit=LIMIT, timeout=TIMEOUT, json=JSON, inventory=INVENTORY)
def check(
    c: Context, limit: str = "", timeout: str = "", json: bool = False, inventory: str = "inventory.yaml"
) -> partial[int]:
    """Prove that the mesh works.

    Exit code 0: it does, 1: it does not, 2: a host has drifted, 4: a host is out of reach.

    Example: ./mesh check
    """
    return work("check", inventory, limit, timeout)


@command(timeout=TIMEOUT, json=JSON, inventory=INVENTORY)
def status(c: Context, timeout: str = "", json: bool = False, inventory: str = "inventory.yaml") -> partial[int]:
    """Show every host: units, Envoy, and its members as the front sees them.

    Exit code 0: all were reached, 4: a host is out of reach.

    Example: ./mesh status --json
    """
    return work("status", inventory, timeout, json=json)


@command(
    name="add-service-host",
    tells=True,
    service="the service that gets the hosts",
    count="how many machines to make",
    host="name of a machine that exists already",
    address="mesh address of that machine",
    lock_wait=LOCK_WAIT,
    json=JSON,
    inventory=INVENTORY,
)
def add_service_host(  # noqa: PLR0913, PLR0917 - one parameter for each flag
    c: Context,
    service: str,
    count: int = 1,
    host: str = "",
    address: str = "",
    lock_wait: str = "",
    json: bool = False,
    inventory: str = "inventory.yaml",
) -> partial[int]:
    """Add hosts to a service, and enter them into the front's endpoints once they are ready.

    Example: ./mesh add-service-host service1 --count 2

    Example: ./mesh add-service-host service1 --host shop-7 --address 10.0.3.17
    """
    existing = (host, address) if host or address else None
    return work("add_service_host", inventory, service, count, existing, lock_wait)


@command(name="remove-service-host", tells=True, host=HOST, lock_wait=LOCK_WAIT, json=JSON, inventory=INVENTORY)
def remove_service_host(
    c: Context, host: str, lock_wait: str = "", json: bool = False, inventory: str = "inventory.yaml"
) -> partial[int]:
    """Take a host out of the front's endpoints, then stop it.

    A machine that was made for the mesh is destroyed; another loses what was put on it.

    Example: ./mesh remove-service-host service1-3
    """
    return work("remove_service_host", inventory, host, lock_wait)


@command(tells=True, target="SERVICE=NUMBER", lock_wait=LOCK_WAIT, json=JSON, inventory=INVENTORY)
def scale(
    c: Context, target: str, lock_wait: str = "", json: bool = False, inventory: str = "inventory.yaml"
) -> partial[int]:
    """Bring a service to a number of hosts, up or down.

    Example: ./mesh scale service1=3
    """
    return work("scale", inventory, target, lock_wait)


@command(
    tells=True,
    hosts="hosts, services, `edge`, or globs such as 'front-*'; with commas",
    force="also where nobody stands in: requests fail until the host is back",
    lock_wait=LOCK_WAIT,
    json=JSON,
    inventory=INVENTORY,
)
def reboot(  # noqa: PLR0913, PLR0917 - one parameter for each flag
    c: Context,
    hosts: str,
    force: bool = False,
    lock_wait: str = "",
    json: bool = False,
    inventory: str = "inventory.yaml",
) -> partial[int]:
    """Boot hosts again, one by one, so that no request is lost.

    A service host is taken out of the front's endpoints first, and finishes what it has; an edge
    reports first that it goes. A host that nobody could stand in for is refused.

    Example: ./mesh reboot service1-1

    Example: ./mesh reboot service1,front-2
    """
    return work("reboot", inventory, hosts, lock_wait, force=force)


@command(
    tells=True,
    ca="by a new certificate authority: clients of the old one and of the new one accept them",
    lock_wait=LOCK_WAIT,
    json=JSON,
    inventory=INVENTORY,
)
def renew(
    c: Context, ca: bool = False, lock_wait: str = "", json: bool = False, inventory: str = "inventory.yaml"
) -> partial[int]:
    """Renew the fronts' certificates now, with no connection closed.

    `provision` renews one by itself in the last third of its year.

    Example: ./mesh renew --ca
    """
    return work("renew", inventory, lock_wait, ca=ca)


@command(name="lock-status", limit=LIMIT, json=JSON, inventory=INVENTORY)
def lock_status(c: Context, limit: str = "", json: bool = False, inventory: str = "inventory.yaml") -> partial[int]:
    """Show which operator changes which hosts now: who, since when, why.

    Exit code 0: all were read, 4: a host is out of reach.

    Example: ./mesh lock-status
    """
    return work("lock_status", inventory, limit, json=json)


@command(name="lock-release", limit=LIMIT, message=MESSAGE, json=JSON, inventory=INVENTORY)
def lock_release(
    c: Context, limit: str = "", message: str = "", json: bool = False, inventory: str = "inventory.yaml"
) -> partial[int]:
    """Take the lock of hosts from whoever has it.

    A run that is still at work begins no further change there. A lock is free by itself
    once the tool that has it has ended.

    Exit code 0: all are free, 4: a host is out of reach.

    Example: ./mesh lock-release --limit front-envoy
    """
    return work("lock_release", inventory, limit, message, json=json)


@command(name="exec", host=HOST, command="what root shall run there, in quotes", inventory=INVENTORY)
def execute(c: Context, host: str, command: str, inventory: str = "inventory.yaml") -> partial[int]:
    """Run a command on a host, as root; exits with its exit code.

    Example: ./mesh exec front-envoy "curl -s localhost:8080/service/1"
    """
    return work("execute", inventory, host, command)


@command(host=HOST, inventory=INVENTORY)
def shell(c: Context, host: str, inventory: str = "inventory.yaml") -> partial[int]:
    """Log in on a host.

    Example: ./mesh shell service1-1
    """
    return work("shell", inventory, host)


@command(
    host=HOST,
    path="path of Envoy's admin interface, such as /stats",
    post="send a POST, as Envoy asks for where a request changes something",
    inventory=INVENTORY,
)
def admin(c: Context, host: str, path: str, post: bool = False, inventory: str = "inventory.yaml") -> partial[int]:
    """Ask the admin interface of a host's Envoy, over SSH.

    Example: ./mesh admin front-envoy /server_info
    """
    return work("admin", inventory, host, path, post=post)


@command(name="vagrant-box", tells=True)
def vagrant_box(c: Context) -> partial[int]:
    """Build the Vagrant box envoymesh/bookworm from Debian packages, for where none can be downloaded.

    Example: ./mesh vagrant-box
    """
    return work("vagrant_box")


@command(layer="which: unit, golden, lab, vagrant, separated by commas; otherwise all that this box can run")
def test(c: Context, layer: str = "") -> partial[int]:
    """Run the project's own tests, and name the layers that this box cannot run, with the reason.

    With CI=true in the environment, a layer that cannot run is a failure.

    Example: ./mesh test --layer unit,golden
    """
    return partial(import_module("tests.layers").run_tests, [name for name in layer.split(",") if name])


@command(
    case="which of nothing, everything, fleet, far, planning, list, path, settings, with commas; otherwise all",
    runs="how often each contestant runs; its median counts",
)
def bench(c: Context, case: str = "", runs: int = 5) -> partial[int]:
    """Measure how long provisioning takes, beside Ansible and pyinfra.

    Its hosts are made for it and gone in the end. A run of all rows writes docs/benchmarks.md.
    The case `reliability`, alone, runs the tests under load and writes docs/reliability.md.

    Example: ./mesh bench --case nothing,list --runs 3
    """
    names = [name for name in case.split(",") if name]
    return partial(import_module("benchmarks.bench").bench, names, runs)
