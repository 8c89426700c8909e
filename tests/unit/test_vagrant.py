"""What is read out of Vagrant's output."""

from envoymesh.machines.vagrant import errors_in

PARALLEL = """\
Bringing machine 'front-envoy' up with 'libvirt' provider...
==> front-envoy: Creating domain with the following settings...
    front-envoy: SSH address: 192.168.121.2:22
An error occurred. The error will be shown after all tasks complete.
An error occurred while executing multiple actions in parallel.
Any errors that occurred are shown below.

An error occurred while executing the action on the 'front-envoy'
machine. Please handle this error then try again:

Name `x_front-envoy` of domain about to create is already taken. Please try to run
`vagrant up` command again.

An error occurred while executing the action on the 'service1-1'
machine. Please handle this error then try again:

uninitialized constant VagrantPlugins::ProviderLibvirt::Action::ProvisionerCleanup (autoload)
Call to virDomainCreateWithFlags failed: no space
"""

CRASHED = """\
==> s1: Starting domain.
/usr/lib/ruby/vendor_ruby/fog/libvirt/vm_action.rb:7:in `create': Call to X failed: no PTY (Libvirt::Error)
\tfrom /usr/lib/ruby/vendor_ruby/fog/libvirt/vm_action.rb:7:in `vm_action'
"""


def test_errors_are_told_per_machine_without_ruby() -> None:
    assert errors_in(PARALLEL.splitlines()) == {
        "front-envoy": [
            "Name `x_front-envoy` of domain about to create is already taken. Please try to run",
            "`vagrant up` command again.",
        ],
        "service1-1": ["Call to virDomainCreateWithFlags failed: no space"],
    }


def test_a_crash_is_told_by_its_first_line() -> None:
    assert errors_in(CRASHED.splitlines()) == {"": ["Call to X failed: no PTY"]}


def test_when_nothing_is_told_the_last_lines_are_shown() -> None:
    assert errors_in(["==> s1: Starting domain."]) == {"": ["==> s1: Starting domain."]}
