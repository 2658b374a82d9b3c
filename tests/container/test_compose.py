"""compose.yaml and its overrides: schema, effect of each variable, agreement with the server."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from millm.api.origins import HostRule, parse_address
from millm.settings import Settings
from tests.container.composing import ROOT, composed, started, variables_of
from tools.env_example import COMPOSE

GPU = ("compose.yaml",)
CPU = ("compose.yaml", "compose.cpu.yaml")


def schema_says(config: dict[str, Any], folder: Path) -> "subprocess.CompletedProcess[str]":
    """The compose specification's own schema comes with the tool."""
    file = folder / "compose.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    checking = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(checking, capture_output=True, text=True)


@pytest.mark.parametrize("files", [GPU, CPU], ids=["gpu", "cpu"])
def test_compose_files_match_the_schema(files: tuple[str, ...], tmp_path: Path) -> None:
    config = composed(*files)
    good = schema_says(config, tmp_path)
    assert good.returncode == 0, good.stdout
    config["services"]["millm"]["restarrt"] = "no"
    bad = schema_says(config, tmp_path)
    assert bad.returncode == 1
    assert "restarrt" in bad.stdout


def test_the_default_starts_the_server_and_a_profile_adds_the_chat() -> None:
    config = composed(*GPU)
    assert started(config) == {"millm"}
    assert started(config, "chat") == {"millm", "open-webui"}


def test_the_gpu_is_reserved_except_on_cpu() -> None:
    (device,) = composed(*GPU)["services"]["millm"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    gpu, cpu = (composed(*files)["services"]["millm"] for files in (GPU, CPU))
    assert "deploy" not in cpu
    assert cpu["build"]["args"]["TORCH_INDEX"] == "cpu"
    assert "python" in cpu["build"]["args"]["BASE_IMAGE"]
    changed = {name for name in gpu if gpu[name] != cpu.get(name)}
    assert changed == {"image", "build", "deploy"}


@pytest.mark.parametrize("files", [GPU, CPU], ids=["gpu", "cpu"])
def test_no_port_is_open_to_the_network(files: tuple[str, ...]) -> None:
    config = composed(*files, MILLM_PORT="9000", OPEN_WEBUI_PORT="9001")
    ports = [port for service in config["services"].values() for port in service["ports"]]
    assert ports == ["127.0.0.1:9000:8000", "127.0.0.1:9001:8080"]


def test_the_chat_reaches_the_server_by_name() -> None:
    """Also with other allowed host names."""
    chat = composed(*GPU)["services"]["open-webui"]["environment"]
    address = parse_address(chat["OPENAI_API_BASE_URL"].split("/")[2])
    assert address
    for given, expected in {"": ("millm",), "*.lan,llm": ("millm", "*.lan", "llm")}.items():
        text = composed(*GPU, MILLM_ALLOWED_HOSTS=given)["services"]["millm"]["environment"]["MILLM_ALLOWED_HOSTS"]
        allowed = Settings(allowed_hosts=text).allowed_hosts
        assert allowed == expected
        assert HostRule.allowing(allowed).allows(address)


def test_the_chat_gets_the_api_key() -> None:
    def key(**variables: str) -> str:
        return str(composed(*GPU, **variables)["services"]["open-webui"]["environment"]["OPENAI_API_KEY"])

    assert key() == "unused"
    assert key(MILLM_API_KEY="secret") == "secret"


def test_secrets_are_passed_and_not_written() -> None:
    service = composed(*GPU)["services"]["millm"]
    for name in ("HF_TOKEN", "MILLM_API_KEY", "MILLM_ADMIN_KEY"):
        assert service["environment"][name] is None
    assert service["env_file"] == [{"path": ".env", "required": False}]


def test_the_command_is_configurable() -> None:
    assert composed(*GPU)["services"]["millm"]["command"] == "serve"
    assert composed(*GPU, MILLM_COMMAND="demo")["services"]["millm"]["command"] == "demo"


def test_the_container_has_no_privileges() -> None:
    service = composed(*GPU)["services"]["millm"]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace > Settings.model_fields["drain_timeout"].default


def test_every_variable_of_compose_is_in_the_example() -> None:
    settings = {f"MILLM_{name.upper()}" for name in Settings.model_fields} | {"HF_TOKEN"}
    assert set(COMPOSE) <= variables_of(*CPU) <= settings | set(COMPOSE)


def test_data_is_in_the_image_and_in_a_volume() -> None:
    config = composed(*GPU)
    service = config["services"]["millm"]
    (volume,) = service["volumes"]
    name, folder = volume.split(":")
    assert name in config["volumes"]
    assert service["environment"]["MILLM_HOME"] == folder
    assert service["environment"]["HF_HOME"].startswith(f"{folder}/")


def test_the_chat_waits_for_a_healthy_server_and_is_pinned() -> None:
    chat = composed(*GPU)["services"]["open-webui"]
    assert chat["depends_on"] == {"millm": {"condition": "service_healthy"}}
    version = chat["image"].rpartition(":v")[2]
    assert f"open-webui=={version}" in (ROOT / "tests" / "clients" / "pins" / "open-webui.txt").read_text("utf-8")
