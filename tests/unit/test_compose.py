"""The deployment files say what the code says: services, durability, settings, ports, and no secret."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from core.settings import Settings, variable

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE: Final = (ROOT / "deploy/Dockerfile").read_text()
NGINX: Final = (ROOT / "deploy/nginx.conf").read_text()
_FIELDS: Final = Settings.__struct_fields__
DEFAULTS: Final = dict(zip(reversed(_FIELDS), reversed(Settings.__struct_defaults__), strict=False))
SECRETS: Final = ("FLASHPROOF_SECRET", "FLASHPROOF_VAULT_KEY", "FLASHPROOF_POSTGRES_PASSWORD")


def blocks(text: str, indent: int) -> dict[str, str]:
    """Return the mappings at this indentation by name: each one's text is what is indented deeper."""
    head = re.compile(rf"^ {{{indent}}}([\w-]+):(.*\n(?:(?: {{{indent + 1},}}.*)?\n)*)", re.MULTILINE)
    return dict(head.findall(text + "\n"))


SERVICES: Final = blocks(blocks(COMPOSE, 0)["services"], 2)
SHOP: Final = blocks(COMPOSE, 0)["x-shop"]


def test_all_six_services_are_there() -> None:
    assert list(SERVICES) == ["valkey", "postgres", "migrate", "serve", "work", "nginx"]
    for name in ("migrate", "serve", "work"):
        assert "<<: *shop" in SERVICES[name]
        assert re.search(rf"command: \[{name}\b", SERVICES[name])


def test_the_stores_are_those_the_laptop_has_and_as_durable() -> None:
    assert "image: valkey/valkey:9\n" in SERVICES["valkey"]
    assert "image: postgres:18\n" in SERVICES["postgres"]
    words = re.findall(r"^      - (.*)$", SERVICES["valkey"], re.MULTILINE)
    flags = dict(zip(words[1::2], (word.strip('"') for word in words[2::2]), strict=True))
    assert flags == {
        "--appendonly": "yes",
        "--appendfsync": "always",
        "--no-appendfsync-on-rewrite": "no",
        "--maxmemory-policy": "noeviction",
        "--save": "",
    }
    for flag in ("fsync=on", "synchronous_commit=on", "full_page_writes=on"):
        assert f"- {flag}\n" in SERVICES["postgres"]
    for store in ("valkey", "postgres"):
        assert f'volumes: ["{store}:' in SERVICES[store]


def test_whatever_runs_for_long_says_whether_it_is_well_and_comes_back() -> None:
    for name in SERVICES.keys() - {"migrate"}:
        assert "healthcheck:" in SERVICES[name], name
        assert "restart: unless-stopped" in SERVICES[name], name


def test_nothing_starts_before_what_it_needs() -> None:
    for name, needs in {
        "migrate": {"postgres": "service_healthy"},
        "serve": {"migrate": "service_completed_successfully", "valkey": "service_healthy"},
        "work": {"migrate": "service_completed_successfully", "valkey": "service_healthy"},
        "nginx": {"serve": "service_healthy"},
    }.items():
        depends = blocks(blocks(SERVICES[name], 4)["depends_on"], 6)
        for need, condition in needs.items():
            assert f"condition: {condition}" in depends[need], name


def test_no_secret_has_a_value_here_and_none_may_be_forgotten() -> None:
    for name in SECRETS:
        uses = re.findall(rf"\$\{{{name}(.{{0,2}})", COMPOSE)
        assert uses and set(uses) == {":?"}, name
    for line in COMPOSE.splitlines():
        name, _, value = line.strip().partition(": ")
        if re.search(r"(SECRET|KEY|PASSWORD)$", name) and not name.startswith("#"):
            assert value.startswith("${"), f"a secret inline: {name}"


def test_every_setting_named_is_a_setting() -> None:
    named = set(re.findall(r"^ +(FLASHPROOF_\w+):", SHOP, re.MULTILINE))
    assert named <= {variable(field) for field in _FIELDS}
    required = {variable(field) for field in _FIELDS if field not in DEFAULTS}
    assert required <= named


def test_buyers_reach_the_buyers_port_and_nobody_the_operations_ports() -> None:
    assert f"server serve:{DEFAULTS['port']} " in NGINX
    assert f'ready.py, "{DEFAULTS["ops_port"]}"' in SERVICES["serve"]
    assert f'ready.py, "{DEFAULTS["work_ops_port"]}"' in SERVICES["work"]
    assert [name for name in SERVICES if re.search(r"^    ports:", SERVICES[name], re.MULTILINE)] == ["nginx"]
    for port in ("ops_port", "work_ops_port"):
        assert str(DEFAULTS[port]) not in NGINX


def test_the_image_holds_the_locked_dependencies_and_files_that_exist() -> None:
    assert "--require-hashes --requirement requirements.lock" in DOCKERFILE
    kept = re.findall(r"^!(.+)$", (ROOT / "deploy/Dockerfile.dockerignore").read_text(), re.MULTILINE)
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    assert sorted(copied) == sorted(kept)
    for name in copied:
        assert (ROOT / name).exists(), name
    assert DOCKERFILE.index("USER ") < DOCKERFILE.index("ENTRYPOINT"), "never root"


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("\nmake test")


def test_docker_itself_accepts_the_compose_file() -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("`docker compose` is not installed here: its own check of the compose file was not made")
    files = ["--env-file", os.devnull, "--file", str(ROOT / "docker-compose.yml")]
    command = ["docker", "compose", *files, "config", "--quiet"]
    given = {**os.environ, **dict.fromkeys(SECRETS, "given")}
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in SECRETS:
        some = {other: value for other, value in given.items() if other != name}
        refused = subprocess.run(command, env=some, capture_output=True, text=True, check=False)
        assert refused.returncode != 0 and name in refused.stderr
