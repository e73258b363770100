"""Reads HOST:PORT, where webhooks are to be taken."""

from dataclasses import dataclass
from ipaddress import ip_address

from orchestrator.errors import SettingUnusable

CURE = "Write it as HOST:PORT, such as 127.0.0.1:8700."
PORT_MAX = 65_535
PORT_DIGITS_MAX = 5  # zeros before it are no part of a port


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    @property
    def here(self) -> str:
        """The url for callers on this machine."""
        host = self.host
        if _is_any(host):
            host = "::1" if ":" in host else "127.0.0.1"
        return f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"


def address_of(name: str, said: str | None) -> Address | None:
    """The address that was said under this name; None when none was.

    Raises:
        SettingUnusable: It is none.
    """
    if said is None:
        return None
    host, _, port = said.strip().rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if is_bracketed:
        host = host[1:-1]
    problem = None
    if not host or not port.isascii() or not port.isdigit():
        problem = "it names no host and port"
    elif len(port) > PORT_DIGITS_MAX or int(port) > PORT_MAX:
        problem = f"a port is {PORT_MAX} at most"
    elif (":" in host) != is_bracketed or not host.isprintable() or set(host) & set(" /@"):
        problem = "its host is none (an IPv6 address stands in brackets)"
    if problem is not None:
        raise SettingUnusable(name=name, value=said, problem=problem, cure=CURE)
    return Address(host, int(port))


def _is_any(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
