"""What is asked of a request's headers before anything of it is run. Raises; answers nothing itself."""

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.datastructures import Headers

from millm.errors import AddressNotAllowed, AmbiguousLength, EncodedBody, OriginNotAllowed
from millm.guard.hosts import Address, HostRule, parse_address
from millm.guard.origins import OriginRule

_API_PREFIXES = ("/v1", "/api")
_MAX_QUOTED_CHARS = 128
_NOT_ALLOWED = "may not use this server; MILLM_ALLOWED_ORIGINS lists those that may."


@dataclass(frozen=True)
class RequestRules:
    """Made once, of the operator's settings."""

    hosts: HostRule
    origins: OriginRule

    @classmethod
    def allowing(cls, hosts: Iterable[str], origins: Iterable[str]) -> "RequestRules":
        return cls(HostRule.allowing(hosts), OriginRule.allowing(origins))

    def check(self, headers: Headers, method: str, path: str) -> None:
        """Raises AmbiguousLength, EncodedBody, AddressNotAllowed or OriginNotAllowed."""
        _check_length(headers)
        _check_encoding(headers)
        host = self._checked_host(headers)
        origins = headers.getlist("origin")
        if not all(self.origins.allows(origin, host) for origin in origins) or len(origins) > 1:
            raise OriginNotAllowed(f"Pages of {origins[0][:_MAX_QUOTED_CHARS]!r} {_NOT_ALLOWED}")
        if not origins:
            _check_site(headers, method, path)

    def allowed_origin(self, headers: Headers) -> str | None:
        """The origin whose page may read the answer, if it is a page that asks and it may."""
        origin, host = headers.get("origin"), parse_address(headers.get("host", ""))
        return origin if origin and host and self.hosts.allows(host) and self.origins.allows(origin, host) else None

    def _checked_host(self, headers: Headers) -> Address:
        hosts = headers.getlist("host")
        address = parse_address(hosts[0]) if len(hosts) == 1 else None
        if address is None:
            raise AddressNotAllowed("The request must have exactly one `Host`, such as `localhost:8000`.")
        if not self.hosts.allows(address):
            raise AddressNotAllowed(
                f"This server does not answer to the name {address.name[:_MAX_QUOTED_CHARS]!r}; "
                "ask by IP address or localhost, or add the name to MILLM_ALLOWED_HOSTS."
            )
        return address


def _check_length(headers: Headers) -> None:
    """Two servers in a row that each believe another of the two would take one request for two."""
    if "content-length" in headers and "transfer-encoding" in headers:
        raise AmbiguousLength("Send `Content-Length` or `Transfer-Encoding`, not both.")


def _check_encoding(headers: Headers) -> None:
    if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise EncodedBody("Send the body as it is, without `Content-Encoding`.")


def _check_site(headers: Headers, method: str, path: str) -> None:
    """Forms, pictures and scripts of another site come without an Origin; browsers still tell where from."""
    if headers.get("sec-fetch-site") not in ("cross-site", "same-site"):
        return
    is_navigation = headers.get("sec-fetch-mode") == "navigate"
    if method != "GET" or (path.startswith(_API_PREFIXES) and not is_navigation):
        raise OriginNotAllowed(f"Pages of another site {_NOT_ALLOWED}")
