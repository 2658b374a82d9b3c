"""Text from elsewhere, made safe to print: what a model or a repository says must not move the cursor."""

_CONTROL_CHARS = {code: "�" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def replace_control_chars(text: str) -> str:
    """Without control characters."""
    return text.translate(_CONTROL_CHARS)
