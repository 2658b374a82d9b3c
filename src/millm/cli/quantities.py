"""Bytes, counts, times and shares as people read them. Pure."""

UNKNOWN = "–"
"""Stands for what is not known."""

_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")
_COUNT_SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def format_bytes(count: int | float | None) -> str:
    """Bytes in decimal units, as disks and Hugging Face count: `5.2 GB`, `269 MB`."""
    if count is None:
        return UNKNOWN
    value, unit = float(count), 0
    while round(value, 1) >= 1000 and unit < len(_BYTE_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_BYTE_UNITS[unit]}" if unit == 0 or value >= 99.95 else f"{value:.1f} {_BYTE_UNITS[unit]}"


def format_bytes_progress(done: int, total: int) -> str:
    """`1.2 / 5.2 GB`; each with its unit where they differ."""
    (done_value, done_unit), (total_value, total_unit) = format_bytes(done).split(), format_bytes(total).split()
    return f"{done_value}{'' if done_unit == total_unit else f' {done_unit}'} / {total_value} {total_unit}"


def format_parameters(count: int | None) -> str:
    """`135 M`, `2.6 B`: thousands, millions, billions."""
    if count is None:
        return UNKNOWN
    scale, unit = next(((scale, unit) for scale, unit in _COUNT_SCALES if count >= scale), (1.0, ""))
    value = count / scale
    return f"{value:.0f} {unit}".rstrip() if value >= 99.95 or not unit else f"{value:.1f} {unit}"


def format_count(count: int | None) -> str:
    """`16,384`."""
    return UNKNOWN if count is None else f"{count:,}"


def format_file_count(count: int) -> str:
    return f"{format_count(count)} {'file' if count == 1 else 'files'}"


def format_percent(value: float | None) -> str:
    """0..1 in per cent."""
    return UNKNOWN if value is None else f"{100 * value:.0f} %"


def format_duration(seconds: float) -> str:
    """`8 s`, `2 min 46 s`, `3 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
