"""What the settings say of where things are, checked when it is read: what is wrong is said before anything waits."""

import re

_PORT = 9092  # Kafka's, in what is proposed
_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,245}")  # 249 with the `.dlq` behind it
_QUOTES = ("'", '"')


def plain(text: str) -> str:
    """Text that is meant as it stands. Raises ValueError for quotes or blanks around it, and for control characters."""
    if text.startswith(_QUOTES) or text.endswith(_QUOTES):
        raise ValueError("there are quotes around it, which are not part of it: leave them out")
    if text != text.strip():
        raise ValueError("there are blanks around it, which are not part of it: leave them out")
    if not text.isprintable():
        raise ValueError("there are control characters in it")
    return text


def bootstrap_servers(text: str) -> str:
    """`host:port[,host:port]`, without blanks and schemes. Raises ValueError."""
    servers = [_server(server) for server in plain(text).split(",")]
    return ",".join(servers)


def _server(text: str) -> str:
    server = text.strip()  # blanks beside a comma do no harm
    scheme, separator, rest = server.rpartition("://")
    if separator:
        if scheme.upper() in ("SSL", "SASL_PLAINTEXT", "SASL_SSL"):
            protocol = f'{{"security.protocol": "{scheme.upper()}"}}'
            raise ValueError(f"{scheme}:// is not said here but in TIDEMILL_KAFKA_CONFIG: {protocol}")
        if scheme.upper() != "PLAINTEXT":
            raise ValueError(f"{scheme}:// is no part of it: host:port, such as kafka:{_PORT}")
        server = rest
    if "@" in server:
        raise ValueError('no user and password here, but in TIDEMILL_KAFKA_CONFIG: {"sasl.username": ...}')
    host, colon, port = server.rpartition(":")
    if not colon or server.endswith("]"):
        host, port = server, str(_PORT)
    if not host:
        raise ValueError(f"a server is missing: host:port[,host:port], such as kafka:{_PORT}")
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is no host: a name, an IPv4 address, or an IPv6 address in brackets")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"the port {port!r} of {host} is no number from 1 to 65535")
    return server


def topic(name: str) -> str:
    """A name that Kafka takes, also with `.dlq` behind it. Raises ValueError."""
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise ValueError("a topic's name is of 1 to 245 letters, digits, dots, underscores and hyphens")
    return name
