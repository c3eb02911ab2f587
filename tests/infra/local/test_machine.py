"""What the local fleet refuses to run on, and that the message says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local import checks
from infra.local.checks import MachineError, check_platform, tool

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


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH, empty; nothing was fetched before."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(checks, "CACHE", tmp_path / "cache")
    return folder


def program(path: Path, text: str = "") -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_tool_on_path_is_taken_also_under_its_other_name(only: Path) -> None:
    there = program(only / "pushgateway")
    assert tool("prometheus-pushgateway", print) == there


def test_a_tool_that_is_missing_is_installed_with_brew_where_there_is_no_apt(only: Path) -> None:
    program(only / "brew", f'echo "$@" > {only}/asked; : > {only}/prometheus; /bin/chmod +x {only}/prometheus')
    said: list[str] = []
    assert tool("prometheus", said.append) == only / "prometheus"
    assert (only / "asked").read_text() == "install --quiet prometheus\n"
    assert said == ["fetching prometheus"]


def test_a_tool_that_nothing_can_bring_is_named_with_the_ways_to_get_it(only: Path) -> None:
    with pytest.raises(MachineError, match="apt install prometheus-pushgateway, brew install pushgateway, or unpack"):
        tool("prometheus-pushgateway", print)
