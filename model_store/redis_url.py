"""Checks a Redis URL when the settings are read, rather than with the first command.

No message holds the URL, nor a part of it that may belong to a password.
"""

from urllib.parse import parse_qs, unquote, urlsplit

_SCHEMES = ("redis", "rediss", "unix")
_QUOTES = ("'", '"')
_FORM = "redis://host:6379/0, rediss:// with TLS, or unix:///path/of/redis.sock"

# The options allowed behind the `?`. The client knows more, some of which would change the form of answers.
_OPTIONS = frozenset(
    {
        "db",
        "username",
        "password",
        "client_name",
        "max_connections",
        "health_check_interval",
        "socket_timeout",
        "socket_connect_timeout",
        "socket_keepalive",
    }
)
_TLS_OPTIONS = frozenset(
    {
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_keyfile",
        "ssl_password",
    }
)


def check_redis_url(url: str) -> None:
    """Raises ValueError with one line: what is wrong, and what would be right."""
    if url != url.strip() or url.startswith(_QUOTES) or url.endswith(_QUOTES):
        raise ValueError("there are blanks or quotes around it: they are not part of the address")
    if not url.isprintable() or " " in url:
        raise ValueError("an address has no blanks or control characters in it; write them as %20")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(
            f"not a URL such as {_FORM}; in a password, any of / ? # @ is to be written as %2F %3F %23 %40"
        ) from None
    if parts.scheme not in _SCHEMES or "://" not in url:
        raise ValueError(f"not a URL such as {_FORM}")
    if parts.fragment:
        raise ValueError("nothing may stand behind a #; in a password, write it as %23")
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("a unix:// address names a socket, such as unix:///path/of/redis.sock")
    elif port == 0:
        raise ValueError("the port is a number from 1 to 65535")
    else:
        _check_database("the database behind the /", unquote(parts.path).strip("/"))
    options = parse_qs(parts.query, keep_blank_values=True)
    known = _OPTIONS | (_TLS_OPTIONS if parts.scheme == "rediss" else frozenset())
    for name in options:
        if name not in known:
            why = "is for rediss://" if name in _TLS_OPTIONS else "is none that may be set here"
            raise ValueError(f"the option {name!r} {why}; there are {', '.join(sorted(known))}")
    for value in options.get("db", []):
        _check_database("the option db", value)


def _check_database(what: str, number: str) -> None:
    if number and not (number.isascii() and number.isdigit()):
        raise ValueError(f"{what} is a number, such as 0")
