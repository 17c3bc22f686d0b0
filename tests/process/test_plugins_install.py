"""The plugins as distributions: built from their folders, installed beside the gateway, found by it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
PATIENCE = 50
CONFIG = """
plugins:
- use: header_auth
  settings: {networks: [127.0.0.1]}
- {use: redact, name: outgoing, fail: closed, routes: ["gpt-*"], settings: {direction: [out]}}
"""


def project(folder: Path) -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return found


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`streamgate ...` where only the gateway and the plugins are installed; the libraries are those of the tests."""
    there = tmp_path_factory.mktemp("environment")
    venv.create(there, symlinks=True)
    [packages] = there.glob("lib/python3*/site-packages")
    # A path alone: what is installed here for development, plugins among it, stays here but for the libraries.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed", "--no-cache-dir"]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--isolated",
        "--disable-pip-version-check",
        "--python",
        there / "bin" / "python",
    ]
    run([*pip, "install", *options, ROOT, *FOLDERS], cwd=there)

    def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return run([there / "bin" / "streamgate", *arguments], cwd=there)

    return command


def run(command: list[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=cwd, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done


def test_every_plugin_installs_and_is_found(gateway):
    """`pip install` from its folder is all it takes: name, version, hooks and settings are listed."""
    listed = gateway("plugins").stdout
    assert len(FOLDERS) >= 6
    for folder in FOLDERS:
        about = project(folder)
        for name in about["entry-points"]["streamgate.plugins"]:
            assert f"{name} ({about['name']} {about['version']})\n" in listed
    assert "cannot be used" not in listed
    assert "limits[].tokens (whole number, 1 to 1000000000000000 or null; default null)" in listed


def test_what_is_configured_is_listed_in_order(gateway, tmp_path):
    """With names, policies, models and the settings in force."""
    (tmp_path / "gate.yaml").write_text(CONFIG)
    _, _, configured = gateway("plugins", "--config", tmp_path / "gate.yaml").stdout.partition("\nConfigured")
    first, _, second = configured.partition("\n2. ")
    assert "1. header_auth (header_auth)\n  hooks: authenticate\n" in first and "    - 127.0.0.1\n" in first
    assert second.startswith("outgoing (redact)\n") and "fail: closed" in second and "models: gpt-*" in second
    assert gateway("check", "--config", tmp_path / "gate.yaml").stdout.count("- use: ") == 2


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_wheel_holds_its_package_and_nothing_else(folder, tmp_path):
    """No tests, no caches; typed."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    assert subprocess.run(build, cwd=folder, capture_output=True, timeout=PATIENCE, check=False).returncode == 0
    [wheel] = tmp_path.glob("*.whl")
    package = f"streamgate_{folder.name}"
    names = [name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert f"{package}/py.typed" in names
    assert all(name.startswith(f"{package}/") and name.endswith((".py", "/py.typed")) for name in names), names
