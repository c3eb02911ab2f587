"""What the local fleet refuses to run on, and that the message says what to do."""

from __future__ import annotations

import pytest

from infra.local.checks import MachineError, check_platform

GLIBC = ("glibc", "2.36")


@pytest.mark.parametrize(
    ("system", "machine", "libc", "python", "says"),
    [
        ("Darwin", "arm64", ("", ""), (3, 12), "needs x86-64 Linux, this is Darwin on arm64"),
        ("Linux", "aarch64", GLIBC, (3, 12), "needs x86-64 Linux, this is Linux on aarch64"),
        ("Linux", "x86_64", ("glibc", "2.31"), (3, 12), "glibc 2.35 or newer, this is glibc 2.31"),
        ("Linux", "x86_64", ("", ""), (3, 12), "glibc 2.35 or newer, this is no glibc"),
        ("Linux", "x86_64", GLIBC, (3, 13), "Python 3.11 or 3.12, this is 3.13.*make install PYTHON=python3.12"),
    ],
)
def test_other_machines_are_refused_with_a_remedy(
    system: str, machine: str, libc: tuple[str, str], python: tuple[int, int], says: str
) -> None:
    with pytest.raises(MachineError, match=says):
        check_platform(system, machine, libc, python)


@pytest.mark.parametrize(("libc", "python"), [(("glibc", "2.35"), (3, 11)), (("glibc", "2.41"), (3, 12))])
def test_these_are_good(libc: tuple[str, str], python: tuple[int, int]) -> None:
    check_platform("Linux", "x86_64", libc, python)
