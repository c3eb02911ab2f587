"""What the local fleet needs of a machine: looked for first, with a remedy for whatever is missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
TRITON_VENV = Path(os.environ.get("TRITON_VENV", ROOT / ".venv-triton"))
LEAST_GLIBC = (2, 35)
"""What Triton's binary in nvidia-pytriton 0.7.0 was linked against."""
TRITON_PYTHONS = ("3.11", "3.12")
"""numpy<2 and the models' wheels exist for these."""

DEBIAN_PACKAGE_BY_TOOL: Mapping[str, str] = {
    "prometheus": "prometheus",
    "prometheus-pushgateway": "prometheus-pushgateway",
}
OTHER_NAME_BY_TOOL: Mapping[str, str] = {"prometheus-pushgateway": "pushgateway"}
"""What the project's own archives call it."""


class MachineError(Exception):
    """This machine cannot run the local fleet; the text says why and what to do."""


def check_platform(
    system: str = platform.system(),
    machine: str = platform.machine(),
    libc: tuple[str, str] = platform.libc_ver(),
    python: tuple[int, int] = sys.version_info[:2],
) -> None:
    """Raises:
    MachineError: Triton's wheel does not run here.
    """
    remedy = "Use a Debian 12, Ubuntu 22.04 or newer (a virtual machine will do), or the Helm chart on a cluster."
    if system != "Linux" or machine not in ("x86_64", "AMD64"):
        raise MachineError(f"the local fleet needs x86-64 Linux, this is {system} on {machine}. {remedy}")
    name, version = libc
    if name != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < LEAST_GLIBC:
        least = ".".join(map(str, LEAST_GLIBC))
        raise MachineError(f"Triton needs glibc {least} or newer, this is {name or 'no glibc'} {version}. {remedy}")
    if f"{python[0]}.{python[1]}" not in TRITON_PYTHONS:
        raise MachineError(
            f"Triton's models need Python {' or '.join(TRITON_PYTHONS)}, this is {python[0]}.{python[1]}. "
            "Install one and name it: make install PYTHON=python3.12"
        )


def triton_python() -> Path:
    """Triton's own interpreter.

    Raises:
        MachineError: its environment was not built.
    """
    python = TRITON_VENV / "bin" / "python"
    if not python.exists() or not any(TRITON_VENV.glob("lib/python3.*/site-packages/pytriton/tritonserver")):
        raise MachineError(f"no Triton in {TRITON_VENV}: make install")
    return python


def site_packages() -> Path:
    """Where Triton and the models' wheels are."""
    triton_python()
    return next(TRITON_VENV.glob("lib/python3.*/site-packages"))


def tool(name: str, say: Callable[[str], None]) -> Path:
    """A program on PATH, else one fetched into the cache with apt or installed with brew.

    Raises:
        MachineError: neither.
    """
    names = [name, *filter(None, [OTHER_NAME_BY_TOOL.get(name)])]
    fetched = CACHE / name / "usr" / "bin" / name
    found = _on_path(names)
    if found is None and not fetched.exists():
        say(f"fetching {name}")
        _fetch(DEBIAN_PACKAGE_BY_TOOL[name], CACHE / name)
        if not fetched.exists():
            _brew(names[-1])
            found = _on_path(names)
    if found is None and not fetched.exists():
        raise MachineError(
            f"{name} is not on PATH and could not be fetched. Install it: apt install {DEBIAN_PACKAGE_BY_TOOL[name]}, "
            f"brew install {names[-1]}, or unpack https://prometheus.io/download into a folder on PATH"
        )
    return Path(found) if found else fetched


def _on_path(names: Sequence[str]) -> str | None:
    return next(filter(None, map(shutil.which, names)), None)


def check_libpython(say: Callable[[str], None]) -> None:
    """Triton's Python stub is linked against libpython, which Debian's python3 does not bring along.

    Raises:
        MachineError: it is not there and could not be fetched.
    """
    asked = [
        str(triton_python()),
        "-c",
        "import sys, sysconfig; print(sys.version[:4], sysconfig.get_config_var('LIBDIR'))",
    ]
    version, folder = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    library = f"libpython{version}.so.1.0"
    own = TRITON_VENV / "lib" / library
    if (Path(folder) / library).exists() or own.exists() or _is_known_to_the_linker(library):
        return
    say(f"fetching {library}")
    _fetch(f"libpython{version}", CACHE / "libpython")
    fetched = next((CACHE / "libpython").glob(f"usr/lib/*/{library}"), None)
    if fetched is None:
        raise MachineError(f"{library} is missing and could not be fetched. Install it: apt install libpython{version}")
    shutil.copyfile(fetched, own)


def _is_known_to_the_linker(library: str) -> bool:
    ldconfig = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    return bool(ldconfig) and library in subprocess.run(
        [str(ldconfig), "-p"], capture_output=True, text=True, check=False
    ).stdout  # fmt: skip


def _fetch(package: str, folder: Path) -> None:
    """Unpack a Debian package into a folder: no root, no service started. A machine without apt gets nothing here."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        return
    folder.mkdir(parents=True, exist_ok=True)
    download = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package]
    if subprocess.run(download, cwd=folder, capture_output=True, check=False).returncode:
        subprocess.run(["apt-get", "-q", "update"], capture_output=True, check=False)
        subprocess.run(download, cwd=folder, capture_output=True, check=False)
    for archive in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(archive), str(folder)], capture_output=True, check=False)


def _brew(formula: str) -> None:
    """Install with Homebrew, which needs no root either. A machine without it gets nothing here."""
    if shutil.which("brew"):
        subprocess.run(["brew", "install", "--quiet", formula], capture_output=True, check=False)


if __name__ == "__main__":
    try:
        if not sys.argv[1:]:
            check_platform()
        for program in sys.argv[1:]:
            tool(program, print)
    except MachineError as error:
        sys.exit(str(error))
