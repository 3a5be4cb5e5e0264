"""`make test-container`: the image is built, and what the compose file says is run, stopped, killed and started again.

Needs Docker or podman, and the base image of `container/Dockerfile`. The compose file is read here, so that what is
tested is what is in it: images, environment, secrets, volumes, the network, stop signals and grace periods. Nothing is
published on the host, and everything has names of its own, so that it runs beside a real deployment.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parent.parent.parent
HERE: Final = Path(__file__).parent
COMPOSE: Final = ROOT / "docker-compose.yml"
ENOUGH_S: Final = 90.0
INFO_S: Final = 30.0

POSTGRES_STAND_IN: Final = "godot-test-postgres"


def find_engine() -> str | None:
    """Return the command of the engine that answers: a `docker` without its daemon is none."""
    for name in ("docker", "podman"):
        if (found := shutil.which(name)) is not None:
            with suppress(subprocess.TimeoutExpired):
                if subprocess.run([found, "info"], capture_output=True, check=False, timeout=INFO_S).returncode == 0:
                    return found
    return None


class Engine:
    """Docker or podman."""

    def __init__(self) -> None:
        found = find_engine()
        if found is None:
            sys.exit("neither docker nor podman answers `info`: one of them has to build and run the image")
        self.command = found

    def __call__(self, *arguments: object, check: bool = True) -> str:
        done = subprocess.run([self.command, *map(str, arguments)], capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise RuntimeError(
                f"{Path(self.command).name} {' '.join(map(str, arguments))}: {done.stderr.strip()[-2000:]}"
            )
        return done.stdout.strip() if check else done.stdout + done.stderr

    @cached_property
    def is_podman(self) -> bool:
        """Whether it is podman, which may be installed under the name of Docker as well."""
        return "podman" in self("--version").lower()

    def build(self, tag: str, dockerfile: Path, context: Path) -> None:
        """Build an image."""
        # podman makes OCI images by default, which have no HEALTHCHECK; and it may be root in a container itself.
        more = ["--format=docker", "--network=host", "--isolation=chroot"] if self.is_podman else []
        self("build", *more, "--file", dockerfile, "--tag", tag, context)

    def has_image(self, name: str) -> bool:
        """Whether an image is there or can be pulled."""
        return not self("image", "inspect", name, check=False).startswith("Error") and bool(
            self("image", "ls", "--quiet", name, check=False).strip()
        )


class Deployment:
    """The services of the compose file, under names of their own."""

    def __init__(self, engine: Engine, place: Path) -> None:
        self.engine = engine
        self.compose: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
        self.prefix = f"godot-test-{os.getpid()}"
        self.place = place
        self.images: dict[str, str] = {}

    def name(self, what: str) -> str:
        return f"{self.prefix}-{what}"

    def create(self) -> None:
        """Make the network, the secrets, and the containers."""
        (network,) = self.compose["networks"]
        assert network == self.compose["networks"][network]["name"] == "iccm_network"
        self.engine("network", "create", self.name(network))
        password = secrets.token_hex(16)
        contents = {"postgres_password": password, "database_url": f"postgresql://dewey:{password}@winni/winni"}
        for secret in self.compose["secrets"]:
            (self.place / secret).write_text(contents[secret])
            (self.place / secret).chmod(0o644)
        for service, said in self.compose["services"].items():
            self.engine(
                "create", "--name", self.name(service), *self._options(service, said, network), *self._command(said)
            )

    def _options(self, service: str, said: dict[str, Any], network: str) -> Iterator[str]:
        for each in said["networks"]:
            assert each == network
        yield from ("--network", self.name(network), "--network-alias", service)
        for name, value in said.get("environment", {}).items():
            yield from ("--env", f"{name}={value}")
        for secret in said.get("secrets", []):
            yield from ("--volume", f"{self.place / secret}:/run/secrets/{secret}:ro")
        for volume in said.get("volumes", []):
            name, path = volume.split(":")
            yield from ("--volume", f"{self.name(name)}:{path}")
        if "entrypoint" in said:
            yield from (
                "--entrypoint",
                json.dumps(said["entrypoint"]) if self.engine.is_podman else said["entrypoint"][0],
            )
        if "stop_signal" in said:
            yield from ("--stop-signal", said["stop_signal"])
        yield from ("--stop-timeout", str(int(said["stop_grace_period"].removesuffix("s"))))

    def _command(self, said: dict[str, Any]) -> list[str]:
        return [self.images.get(said["image"], said["image"]), *said.get("command", [])]

    def start(self, service: str) -> None:
        self.engine("start", self.name(service))

    def stop(self, service: str) -> tuple[int, float]:
        """Stop a service as an operator does; return its exit code, and the seconds that it took."""
        began = time.monotonic()
        self.engine("stop", self.name(service))
        return int(
            self.engine("inspect", "--format", "{{.State.ExitCode}}", self.name(service))
        ), time.monotonic() - began

    def kill(self, service: str) -> None:
        self.engine("kill", "--signal", "KILL", self.name(service))

    def run(self, service: str, *command: str, check: bool = True) -> str:
        """Run something inside of a service."""
        return self.engine("exec", self.name(service), *command, check=check)

    def stored(self, component: str) -> list[str]:
        """Return the messages of a component that are stored."""
        exported = self.run("godot-mcp", "godot", "export", "-c", component, check=False)
        return [json.loads(line)["message"] for line in exported.splitlines() if line.startswith("{")]

    def remove(self) -> None:
        for service in [*self.compose["services"], "logger"]:
            self.engine("rm", "--force", "--volumes", "--time", "1", self.name(service), check=False)
        for volume in self.compose["volumes"]:
            self.engine("volume", "rm", "--force", self.name(volume), check=False)
        for network in self.compose["networks"]:
            self.engine("network", "rm", "--force", self.name(network), check=False)


@contextmanager
def deployment(engine: Engine) -> Iterator[Deployment]:
    """Make the deployment, and remove it."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        deployed = Deployment(engine, Path(directory))
        try:
            yield deployed
        finally:
            deployed.remove()


def until(look: Callable[[], object], what: str) -> None:
    """Look again and again until something true is seen."""
    ends = time.monotonic() + ENOUGH_S
    while not look():
        assert time.monotonic() < ends, f"after {ENOUGH_S:g} s not: {what}"
        time.sleep(0.2)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Logging:
    """A third container that logs."""

    def __init__(self, deployed: Deployment, name: str) -> None:
        self.deployed, self.name = deployed, name

    def __enter__(self) -> Logging:
        engine, deployed = self.deployed.engine, self.deployed
        engine(
            *("run", "--detach", "--name", deployed.name("logger"), "--network", deployed.name("iccm_network")),
            *("--volume", f"{HERE / 'logger.py'}:/logger.py:ro", "--entrypoint", "python"),
            *(deployed.images["godot-logger"], "/logger.py", "ws://godot-mcp:9060", self.name),
        )
        until(self.acknowledged, "the logger is answered")
        return self

    def acknowledged(self) -> list[str]:
        """Return the messages that were acknowledged so far."""
        said = self.deployed.engine("logs", self.deployed.name("logger"), check=False).splitlines()
        assert not any("Traceback" in line for line in said), said[-5:]
        return [line for line in said if line.startswith(f"{self.name} ")]

    def goes_on(self) -> None:
        """Wait until further entries are acknowledged."""
        before = len(self.acknowledged())
        until(lambda: len(self.acknowledged()) > before + 50, "further entries are acknowledged")

    def __exit__(self, *_: object) -> None:
        self.deployed.engine("stop", "--time", "10", self.deployed.name("logger"))
        acknowledged = self.acknowledged()
        self.deployed.engine("rm", "--force", self.deployed.name("logger"))

        def all_stored() -> bool:
            return set(acknowledged) <= set(self.deployed.stored(self.name))

        until(all_stored, f"all {len(acknowledged)} acknowledged entries of {self.name} are stored")
        stored = self.deployed.stored(self.name)
        assert len(stored) == len(set(stored)), "something is stored twice"
        say(f"  {len(acknowledged)} entries were acknowledged, all are stored, none twice")


def no_zombies(deployed: Deployment, service: str) -> None:
    look = "[p for p in glob.glob('/proc/[0-9]*/stat') if open(p).read().rpartition(') ')[2][0] == 'Z']"
    script = f"import glob; print({look})"
    until(lambda: deployed.run(service, "python", "-c", script) == "[]", f"{service} has no zombie")


def main() -> None:
    engine = Engine()
    say(f"building with {engine.command}")
    engine.build("godot-logger", ROOT / "container" / "Dockerfile", ROOT)
    with deployment(engine) as deployed:
        deployed.images["godot-logger"] = "godot-logger"
        image = deployed.compose["services"]["winni"]["image"]
        if not engine.has_image(image):
            say(f"{image} is not here: a stand-in with Debian's PostgreSQL is built")
            engine.build(POSTGRES_STAND_IN, HERE / "postgres.Dockerfile", HERE)
            deployed.images[image] = POSTGRES_STAND_IN
        deployed.create()
        # In an order that nobody would choose: each waits for the others.
        for service in reversed(deployed.compose["services"]):
            deployed.start(service)
        until(lambda: deployed.run("godot-mcp", "godot", "status", check=False).count(" up") == 2, "all is up")
        assert deployed.run("godot-mcp", "id", "-u") == "10001"
        say("all three services are up")

        say("a third container logs, and each service is stopped and started again")
        with Logging(deployed, "stopping") as logging:
            for service in ("godot-mcp", "dewey-mcp", "winni"):
                code, seconds = deployed.stop(service)
                say(f"  {service} stopped after {seconds:.1f} s with exit code {code}")
                assert code == 0
                assert seconds < 10
                if service == "godot-mcp":
                    assert "event=stopped drained=true lost=0" in engine("logs", deployed.name(service), check=False)
                deployed.start(service)
                logging.goes_on()
        no_zombies(deployed, "godot-mcp")

        say("the same with kill -9")
        with Logging(deployed, "killing") as logging:
            for service in ("godot-mcp", "dewey-mcp", "winni", "godot-mcp"):
                deployed.kill(service)
                deployed.start(service)
                logging.goes_on()
        no_zombies(deployed, "godot-mcp")

        say("an orphan of somebody's is reaped by the daemon, which is the first process")
        deployed.run("godot-mcp", "sh", "-c", "(sleep 1 &)")
        time.sleep(2)
        no_zombies(deployed, "godot-mcp")

        assert deployed.run("godot-mcp", "godot", "healthcheck", check=False) == ""
        code, seconds = deployed.stop("godot-mcp")
        say(f"stopped for good after {seconds:.1f} s with exit code {code}")
        assert code == 0
    say("passed")


if __name__ == "__main__":
    main()
