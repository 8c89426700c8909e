"""What each task does: a request to the engine, its answer to text or JSON, and an exit code."""

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TypeVar

from envoymesh.events import Event, Outcome, OutcomeKind, exit_code_of
from envoymesh.machines import vagrant_box as boxes
from envoymesh.model.inventory import rollout_with
from envoymesh.model.mesh import Host, HostName
from envoymesh.problems import ExitCode, Failed, Problem, of_inventory, refused_file
from envoymesh.report import audit as audit_report
from envoymesh.report import findings as findings_report
from envoymesh.report import history as history_report
from envoymesh.report import lock as lock_report
from envoymesh.report import status as status_report
from envoymesh.report.plan import Document, Line, outcome_lines, outcomes_document, plan_document, plan_lines
from envoymesh.report.terminal import Terminal, problems_json, say
from envoymesh.run import audit as audits
from envoymesh.run import check as checks
from envoymesh.run import deploy as deploys
from envoymesh.run import history as histories
from envoymesh.run import lifecycle, members, plans, remote
from envoymesh.run import lock as locks
from envoymesh.run import provision as provisioning
from envoymesh.run import reboot as reboots
from envoymesh.run import status as statuses
from envoymesh.run.health import await_healthy
from envoymesh.run.interrupt import INTERRUPTED
from envoymesh.run.last_run import not_done
from envoymesh.run.workspace import FAILED, Workspace, host_named, limited, only_writer, open_workspace

T = TypeVar("T")


def guarded(body: Callable[[], ExitCode], terminal: Terminal) -> ExitCode:
    """Return the exit code of `body`; what stops it is printed as problems."""
    try:
        with terminal:
            return body()
    except Failed as failed:
        problems, code = failed.problems, failed.exit_code
    except KeyboardInterrupt:
        problems, code = (INTERRUPTED,), ExitCode.PROBLEM
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise  # no file's, so a bug
        problems, code = (refused_file(error),), ExitCode.PROBLEM
    problems = tuple(_own(p, terminal.inventory) for p in problems)
    if terminal.json:
        say(problems_json(problems, code) + "\n")
    else:
        terminal.problems(problems)
    return code


def _own(problem: Problem, inventory: str) -> Problem:
    """Return a problem whose way out is for the inventory that it was met with."""
    return replace(problem, hint=of_inventory(problem.hint, inventory))


def _owned(outcomes: Sequence[Outcome], inventory: str) -> list[Outcome]:
    return [replace(o, problem=_own(o.problem, inventory)) if o.problem else o for o in outcomes]


def up(inventory: str, provider: str, lock_wait: str = "", *, terminal: Terminal) -> ExitCode:
    """Make machines, provision, check, and show what to try."""
    with _writing(inventory, provider, message="up", lock_wait=lock_wait) as workspace:
        terminal.line(f"provider {workspace.provider.name}: {workspace.why}")
        lifecycle.make_machines(workspace, terminal.notify)
        code = _show(provisioning.provision(workspace, _all(workspace), terminal.notify), terminal, "./mesh up", "")
    if code is ExitCode.DONE:
        await_healthy(workspace, [h for h in _all(workspace) if h.service], terminal.notify)
        code = _check(workspace, _all(workspace), terminal)
    if code is ExitCode.DONE:
        terminal.line("\n" + of_inventory(_try_lines(workspace), inventory))
    return code


def _try_lines(workspace: Workspace) -> str:
    mesh, here = workspace.mesh, workspace.maker() is not None
    host = "localhost" if here else str(mesh.edges[0].address)
    http, https = (mesh.publish.http, mesh.publish.https) if here else (mesh.http_port, mesh.https_port)
    first = next(iter(mesh.services.values()))
    lines = [f"curl -s {host}:{http}{service.path}" for service in mesh.services.values()]
    lines += [f"curl -s --cacert {workspace.state_dir / 'ca.pem'} https://{host}:{https}{first.path}"]
    return "\n".join(["Try it:", *(f"  {line}" for line in [*lines, f"./mesh scale {first.name}=3"])])


def down(inventory: str, *, terminal: Terminal) -> ExitCode:
    """Destroy the machines that were made."""
    with _writing(inventory, message="down") as workspace:
        gone = lifecycle.down(workspace, terminal.notify)
    terminal.line(f"gone: {', '.join(gone)}" if gone else "there was nothing to destroy")
    return ExitCode.DONE


def plan(inventory: str, limit: str, out: str, timeout: str, *, terminal: Terminal) -> ExitCode:
    """Show what would change, and keep it if it shall be made so later."""
    workspace = _workspace(inventory, timeout=timeout)
    planned = provisioning.plan(workspace, _limited(workspace, limit), terminal.notify)
    outcomes = _owned(planned.outcomes, inventory)
    code = exit_code_of(outcomes) or (ExitCode.DRIFT if any(o.changes for o in outcomes) else ExitCode.DONE)
    words = ["--plan", out] if out else ["--limit", limit] if limit else []
    again = of_inventory(shlex.join(["./mesh", "provision", *words]), inventory)
    document = plan_document(replace(planned, outcomes=outcomes), code, again)
    if out:
        plans.save(Path(out), document, workspace, planned)
    _answer(document, plan_lines, outcomes, terminal)
    return code


def provision(  # noqa: PLR0913 - one parameter for each flag
    inventory: str,
    limit: str,
    plan: str,
    writing: Mapping[str, str],
    rollout: Mapping[str, str],
    *,
    terminal: Terminal,
) -> ExitCode:
    """Make hosts as desired, or as a saved plan says; `writing` has the message and how long to wait for what."""
    if plan and limit:
        raise Failed(
            Problem("task/bad-argument", "a saved plan names its hosts", "--plan --limit", hint="leave one out")
        )
    with _writing(inventory, **{**writing, "message": writing["message"] or "provision"}) as written:
        saved = plans.read(Path(plan), written.mesh) if plan else None
        mesh = replace(written.mesh, rollout=rollout_with((saved or written.mesh).rollout, rollout))
        workspace, hosts = replace(written, mesh=mesh), _limited(written, limit)
        if saved is not None:
            hosts = tuple(h for h in hosts if h.name in saved.hosts)
        outcomes = provisioning.provision(workspace, hosts, terminal.notify, saved)
    return _show(outcomes, terminal, f"./mesh provision --limit {FAILED}")


def deploy(  # noqa: PLR0913 - one parameter for each flag
    inventory: str,
    service: str,
    release: Mapping[str, str],
    writing: Mapping[str, str],
    rollout: Mapping[str, str],
    *,
    terminal: Terminal,
) -> ExitCode:
    """Bring a release, which has a folder or a name, to a service; `writing` is as for `provision`."""
    with _writing(inventory, **{**writing, "message": writing["message"] or f"deploy {service}"}) as written:
        name = members.service_named(written.mesh, service)
        chosen = deploys.release_from(written, name, **release)
        message = writing["message"] or f"deploy {name} --release {chosen}"
        mesh = replace(written.mesh, rollout=rollout_with(written.mesh.rollout, rollout))
        workspace = replace(written, mesh=mesh, run=replace(written.run, why=message))
        outcomes = deploys.deploy(workspace, name, chosen, terminal.notify)
    failed = any(o.kind is OutcomeKind.FAILED for o in outcomes)
    again = f"./mesh deploy {name} --release {chosen}" if failed else f"./mesh provision --limit {FAILED}"
    return _show(outcomes, terminal, again)


def history(inventory: str, limit: str, *, json: bool) -> ExitCode:
    """Show what runs have made of hosts."""
    workspace = _workspace(inventory)
    return _show_read(
        histories.history(workspace, _limited(workspace, limit)),
        lambda known: history_report.history_text(known, inventory),
        history_report.history_json,
        inventory,
        json=json,
    )


def audit(inventory: str, limit: str, last: int, *, json: bool) -> ExitCode:
    """Show what was changed or tried."""
    workspace = _workspace(inventory)
    return _show_read(
        audits.audit(workspace, _limited(workspace, limit), last),
        lambda known: audit_report.audit_text(known, last),
        lambda known, problems, code: audit_report.audit_json(known, last, problems, code),
        inventory,
        json=json,
    )


def rollback(inventory: str, limit: str, to: str, writing: Mapping[str, str], *, terminal: Terminal) -> ExitCode:
    """Make hosts as an earlier run left them; `writing` is as for `provision`."""
    why = writing["message"] or (f"rollback to {to}" if to else "rollback")
    with _writing(inventory, **{**writing, "message": why}) as workspace:
        outcomes = histories.rollback(workspace, _limited(workspace, limit), to, terminal.notify)
    return _show(outcomes, terminal, f"./mesh rollback --limit {FAILED}{f' --to {to}' if to else ''}")


def check(inventory: str, limit: str, timeout: str, *, terminal: Terminal) -> ExitCode:
    """Prove that the mesh works."""
    workspace = _workspace(inventory, timeout=timeout)
    return _check(workspace, _limited(workspace, limit), terminal)


def status(inventory: str, timeout: str, *, json: bool) -> ExitCode:
    """Show every host."""
    workspace = _workspace(inventory, timeout=timeout)
    found = statuses.status(workspace, _all(workspace))
    rows = [replace(row, notes=tuple(of_inventory(note, inventory) for note in row.notes)) for row in found]
    say((status_report.status_json(rows) if json else status_report.status_text(rows)) + "\n")
    return ExitCode.DONE if all(row.reachable for row in rows) else ExitCode.UNREACHABLE


def add_service_host(  # noqa: PLR0913 - one parameter for each flag
    inventory: str,
    service: str,
    count: int,
    existing: tuple[str, str] | None,
    lock_wait: str,
    *,
    terminal: Terminal,
) -> ExitCode:
    """Add hosts to a service: `count` new ones, or the `existing` one (name, address)."""
    if existing and count != 1:
        what, now = f"--host names one machine, not {count}", "nothing was changed"
        raise Failed(
            Problem("task/bad-argument", what, "add-service-host --count --host", now=now, hint="leave one out")
        )
    with _writing(inventory, message=f"add-service-host {service}", lock_wait=lock_wait) as workspace:
        name = members.service_named(workspace.mesh, service)
        new = [members.named_host(workspace, *existing)] if existing else members.next_hosts(workspace, name, count)
        outcomes = members.add(workspace, name, new, terminal.notify)
    entered = any(o.host in workspace.mesh.hosts for o in outcomes)  # the fronts came after that
    which = "--host {0.name} --address {0.address}".format(*new) if existing else f"--count {count}"
    again = "./mesh provision" if entered else f"./mesh add-service-host {name} {which}"
    return _show(outcomes, terminal, _completed_by(again, outcomes))


def remove_service_host(inventory: str, host: str, lock_wait: str, *, terminal: Terminal) -> ExitCode:
    """Take a host out of its service."""
    with _writing(inventory, message=f"remove-service-host {host}", lock_wait=lock_wait) as workspace:
        outcomes = members.remove(workspace, [host], terminal.notify)
    return _show(outcomes, terminal, _completed_by(f"./mesh remove-service-host {host}", outcomes))


def scale(inventory: str, target: str, lock_wait: str, *, terminal: Terminal) -> ExitCode:
    """Bring a service to a number of hosts."""
    with _writing(inventory, message=f"scale {target}", lock_wait=lock_wait) as workspace:
        service, count = members.scale_target(workspace.mesh, target)
        outcomes = members.scale(workspace, service, count, terminal.notify)
    return _show(outcomes, terminal, _completed_by(f"./mesh scale {target}", outcomes))


def reboot(inventory: str, hosts: str, lock_wait: str, *, force: bool, terminal: Terminal) -> ExitCode:
    """Boot hosts again, one after the other."""
    if not hosts.strip(" ,"):
        raise Failed(Problem("task/bad-argument", "no host is named", "reboot", hint="all of them: ./mesh reboot '*'"))
    with _writing(inventory, message=f"reboot {hosts}", lock_wait=lock_wait) as workspace:
        outcomes = reboots.reboot(workspace, _limited(workspace, hosts), terminal.notify, force=force)
    left = ",".join(o.host for o in outcomes if o.kind is OutcomeKind.NOT_STARTED)
    return _show(outcomes, terminal, f"./mesh reboot {left}" if left else "")


def renew(inventory: str, lock_wait: str, *, ca: bool, terminal: Terminal) -> ExitCode:
    """Renew the fronts' certificates, and their authority if that is wanted."""
    with _writing(inventory, message="renew --ca" if ca else "renew", lock_wait=lock_wait) as workspace:
        outcomes = provisioning.renew(workspace, terminal.notify, authority=ca)
    return _show(outcomes, terminal, f"./mesh provision --limit {FAILED}")


def _completed_by(command: str, outcomes: Sequence[Outcome]) -> str:
    """Return the command that goes on where hosts were not started; what failed says itself what to do."""
    return command if any(o.kind is OutcomeKind.NOT_STARTED for o in outcomes) else ""


def lock_status(inventory: str, limit: str, *, json: bool) -> ExitCode:
    """Show who has the lock of hosts."""
    workspace = _workspace(inventory)
    return _show_locks(locks.status(workspace, _limited(workspace, limit)), "free", inventory, json=json)


def lock_release(inventory: str, limit: str, message: str, *, json: bool) -> ExitCode:
    """Take the lock of hosts from whoever has it, and show who that was."""
    workspace = _workspace(inventory, message=message or "lock-release")
    return _show_locks(locks.release(workspace, _limited(workspace, limit)), "was free", inventory, json=json)


def _show_locks(locked: locks.Locked, free: str, inventory: str, *, json: bool) -> ExitCode:
    return _show_read(
        locked, lambda known: lock_report.locks_text(known, free), lock_report.locks_json, inventory, json=json
    )


def execute(inventory: str, host: str, command: str) -> int:
    """Run a command on a host; return its exit status."""
    workspace = _workspace(inventory)
    done = remote.execute(workspace, host_named(workspace.mesh, host), command)
    say(done.stdout)
    sys.stderr.buffer.write(done.stderr)
    return done.exit_status


def shell(inventory: str, host: str) -> int:
    """Log in on a host; return the shell's exit status."""
    workspace = _workspace(inventory)
    return remote.shell(workspace, host_named(workspace.mesh, host))


def admin(inventory: str, host: str, path: str, *, post: bool) -> ExitCode:
    """Print what an Envoy's admin interface answers."""
    workspace = _workspace(inventory)
    say(remote.admin(workspace, host_named(workspace.mesh, host), path, post=post).body)
    return ExitCode.DONE


def vagrant_box(*, terminal: Terminal) -> ExitCode:
    """Build the local Vagrant box."""
    name = boxes.build(lambda host, text: terminal.notify(Event(host, text)))
    terminal.line(f"box {name}: use it with `machines: {{box: {name}}}` in inventory.yaml")
    return ExitCode.DONE


def _workspace(inventory: str, provider: str = "", message: str = "", timeout: str = "") -> Workspace:
    timeout_s = locks.seconds(timeout, "--timeout") or None
    return replace(open_workspace(Path(inventory), provider, message), timeout_s=timeout_s)


@contextmanager
def _writing(
    inventory: str, provider: str = "", *, message: str, lock_wait: str = "", timeout: str = ""
) -> Iterator[Workspace]:
    """Give the workspace of an inventory once no other command on this box changes its mesh."""
    wait_s = locks.seconds(lock_wait, "--lock-wait")
    with only_writer(Path(inventory), wait_s):
        yield replace(_workspace(inventory, provider, message, timeout), lock_wait_s=wait_s)


def _limited(workspace: Workspace, limit: str) -> tuple[Host, ...]:
    return limited(workspace.mesh, limit, lambda: not_done(workspace))


def _all(workspace: Workspace) -> Sequence[Host]:
    return list(workspace.mesh.hosts.values())


def _show(outcomes: Sequence[Outcome], terminal: Terminal, again: str, following: str = "./mesh check") -> ExitCode:
    """Print what became of hosts, and what follows; `again` is the command that goes on after a failure."""
    code = exit_code_of(outcomes)
    if code is ExitCode.DONE:
        again = following if any(o.changes for o in outcomes) else ""
    owned = _owned(outcomes, terminal.inventory)
    document = outcomes_document(owned, code, of_inventory(again, terminal.inventory))
    _answer(document, outcome_lines, owned, terminal)
    return code


_SEVERITY = (ExitCode.DONE, ExitCode.UNREACHABLE, ExitCode.PROBLEM)


def _show_read(
    read: Mapping[HostName, T | Problem],
    text: Callable[[Mapping[HostName, T]], str],
    document: Callable[[Mapping[HostName, T], Sequence[Problem], ExitCode], str],
    inventory: str,
    *,
    json: bool,
) -> ExitCode:
    """Print what was read of hosts, and why others could not be read."""
    known = {host: found for host, found in read.items() if not isinstance(found, Problem)}
    problems = [_own(found, inventory) for found in read.values() if isinstance(found, Problem)]
    code = max((p.exit_code for p in problems), key=_SEVERITY.index, default=ExitCode.DONE)
    say((document(known, problems, code) if json else text(known)) + "\n")
    if not json:
        Terminal().problems(problems)
    return code


def _answer(
    document: Document, text: Callable[[Document], Iterator[Line]], outcomes: Sequence[Outcome], terminal: Terminal
) -> None:
    """Print a document, or the text that is drawn from it and the problems in full."""
    terminal.rest()
    if terminal.json:
        say(dumps(document, indent=2) + "\n")
        return
    terminal.lines(text(document))
    terminal.problems([o.problem for o in outcomes if o.problem is not None])


def _check(workspace: Workspace, hosts: Sequence[Host], terminal: Terminal) -> ExitCode:
    found = checks.check(workspace, hosts, terminal.notify)
    findings = [replace(f, hint=of_inventory(f.hint, terminal.inventory)) for f in found]
    terminal.rest()
    say((findings_report.check_json(findings) if terminal.json else findings_report.check_text(findings)) + "\n")
    return checks.exit_code_of_findings(findings)
