"""`.env.example`: every setting with its meaning and default, commented out; and what only compose.yaml reads."""

import textwrap

from millm.settings import Settings

HEAD = """# Written by tools/make_docs.py from the code; do not edit.
# Copy it to .env and take the `#` off what you change: a server that is started beside it reads it, and so does
# `docker compose`.
"""
COMPOSE_HEAD = "# ---- only for docker compose (compose.yaml)\n"
COMPOSE = {
    "MILLM_COMMAND": ("serve", "What the container runs: `serve OWNER/NAME --sae ...`, or `demo`."),
    "WITH_DEMO": ("0", "1 builds the demo's weights into the image."),
    "BASE_IMAGE": ("", "What the image is built on; default: NVIDIA's CUDA, or Python's for compose.cpu.yaml."),
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
    """Nothing where there is none, or several may be given."""
    return "" if default is None or default == () else str(default)
