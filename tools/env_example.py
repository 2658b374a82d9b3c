"""`.env.example`: every setting with its meaning and default, commented out, and the variables of compose.yaml."""

import textwrap

from millm.settings import Settings

HEAD = """# Written by tools/make_docs.py from the code; do not edit.
# Copy this file to .env and remove the `#` from the lines that you change. A server started in the same folder reads
# it, and so does `docker compose`.
"""
COMPOSE_HEAD = "# ---- only for docker compose (compose.yaml)\n"
COMPOSE = {
    "MILLM_COMMAND": ("serve", "The command that the container runs: `serve OWNER/NAME --sae ...`, or `demo`."),
    "WITH_DEMO": ("0", "1 builds the demo's weights into the image."),
    "BASE_IMAGE": ("", "The base of the image; default: NVIDIA's CUDA, or Python's for compose.cpu.yaml."),
    "TORCH_INDEX": ("", "Which torch: `cu126` for drivers of CUDA 12; default: that for CUDA 13, or the CPU's."),
    "OPEN_WEBUI_PORT": ("3000", "This machine's port for Open WebUI."),
}
"""Variable → default, meaning."""


def env_example() -> str:
    settings = [
        _entry(str(field.validation_alias or f"MILLM_{name.upper()}"), _value(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    compose = [_entry(name, default, meaning) for name, (default, meaning) in COMPOSE.items()]
    return "\n".join([HEAD, *settings, COMPOSE_HEAD, *compose])


def _entry(name: str, value: str, meaning: str) -> str:
    comment = textwrap.wrap(meaning, 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    return "\n".join([*comment, f"#{name}={value}", ""])


def _value(default: object) -> str:
    """Empty without a default, or for a list."""
    return "" if default is None or default == () else str(default)
