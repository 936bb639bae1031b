"""Checks a Redis URL when the settings are read, rather than with the first command.

No message holds the URL, nor a part of it that may belong to a password.
"""

import os
import threading
from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlsplit

_SCHEMES = ("redis", "rediss", "unix")
_QUOTES = ("'", '"')
_FORM = "redis://host:6379/0, rediss:// with TLS, or unix:///path/of/redis.sock"


def _text(value: str) -> bool:
    return True


def _number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) < 10  # as much as an integer of the server holds


def _number_from_1(value: str) -> bool:
    return _number(value) and int(value) > 0


def _seconds(value: str) -> bool:
    try:
        return 0 < float(value) <= threading.TIMEOUT_MAX
    except ValueError:
        return False


def _name(value: str) -> bool:
    return value.isascii() and value.isprintable() and " " not in value  # as the server takes it


def _yes_or_no(value: str) -> bool:
    return value.lower() in ("true", "yes", "1", "false", "no", "0")


# The options allowed behind the `?`, and what each value must be. The client knows more options, some of which would
# change the form of answers, and it checks values only when it connects, if at all.
_OPTIONS: dict[str, tuple[Callable[[str], bool], str]] = {
    "db": (_number, "a number, such as 0"),
    "username": (_text, ""),
    "password": (_text, ""),
    "client_name": (_name, "printable ASCII without blanks"),
    "max_connections": (_number_from_1, "a number from 1 on"),
    "health_check_interval": (_number, "a number of seconds; 0: never"),
    "socket_timeout": (_seconds, "a number of seconds above 0"),
    "socket_connect_timeout": (_seconds, "a number of seconds above 0"),
    "socket_keepalive": (_yes_or_no, "true or false"),
}
_TLS_OPTIONS: dict[str, tuple[Callable[[str], bool], str]] = {
    "ssl_ca_certs": (os.path.isfile, "a file, which is not there"),
    "ssl_ca_path": (os.path.isdir, "a folder, which is not there"),
    "ssl_cert_reqs": (("none", "optional", "required").__contains__, "none, optional or required"),
    "ssl_certfile": (os.path.isfile, "a file, which is not there"),
    "ssl_check_hostname": (_yes_or_no, "true or false"),
    "ssl_keyfile": (os.path.isfile, "a file, which is not there"),
    "ssl_password": (_text, ""),
}


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
    if not url.startswith(tuple(f"{scheme}://" for scheme in _SCHEMES)):  # in small letters, as the client has it
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
    known = _OPTIONS | (_TLS_OPTIONS if parts.scheme == "rediss" else {})
    for name, values in options.items():
        if name not in known:
            why = "is for rediss://" if name in _TLS_OPTIONS else "is none that may be set here"
            raise ValueError(f"the option {name!r} {why}; there are {', '.join(sorted(known))}")
        fits, what = known[name]
        if not all(map(fits, values)):
            raise ValueError(f"the option {name} is {what}")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("the option ssl_keyfile is the key of a certificate: ssl_certfile is missing")


def _check_database(what: str, number: str) -> None:
    if number and not _number(number):
        raise ValueError(f"{what} is a number, such as 0")
