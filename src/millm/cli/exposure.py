"""Who could come in that the operator of a server may not have thought of."""

from dataclasses import dataclass

from millm.settings import Settings


@dataclass(frozen=True)
class ExposureWarning:
    text: str
    is_urgent: bool = False


def exposure_warnings(settings: Settings, host: str) -> list[ExposureWarning]:
    told = []
    if not _is_loopback(host) and settings.api_key:
        told.append(
            ExposureWarning(f"listening on {host}: whoever reaches this machine and has the key can use the server")
        )
    elif not _is_loopback(host):
        text = (
            f"listening on {host} without a key: everybody who reaches this machine can use the server and change what"
            " it does; set MILLM_API_KEY, or --host 127.0.0.1"
        )
        told.append(ExposureWarning(text, is_urgent=True))
    if "*" in settings.allowed_hosts:
        told.append(ExposureWarning("MILLM_ALLOWED_HOSTS=*: a web page that rebinds DNS can use the server"))
    return told


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.startswith("127.")
