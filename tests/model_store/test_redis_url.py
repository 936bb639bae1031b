"""Which addresses of a Redis are taken; of the others, what is said, which is never a secret."""

import pytest

from model_store.errors import ModelStoreError
from model_store.redis_connection import connect
from model_store.redis_url import _OPTIONS, _TLS_OPTIONS, check_redis_url

GOOD = [
    "redis://localhost:6379/0",
    "redis://h",
    "redis://h/",
    "redis://h:1/15",
    "redis://[::1]:6379/0",
    "redis://tidemill:secret@h:6379/0",
    "redis://:sec%2Fret%40@h",
    "redis:///3",
    "redis://h?db=3",
    "redis://h/0?socket_timeout=1.5&health_check_interval=30&client_name=me&max_connections=10",
    "rediss://h:6380/0?ssl_cert_reqs=none&ssl_check_hostname=false",
    f"rediss://h:6380/0?ssl_ca_certs={__file__}&ssl_certfile={__file__}&ssl_keyfile={__file__}&ssl_password=x",
    "rediss://h?ssl_ca_path=/&ssl_cert_reqs=required",
    "redis://h?health_check_interval=0&socket_connect_timeout=2&socket_keepalive=no&max_connections=1",
    "redis://h?username=me&password=%C3%A4%20b",
    "unix:///run/redis.sock",
    "unix:///run/redis.sock?db=2",
    "unix://:secret@/run/redis.sock",
]
BAD = {
    "": "not a URL such as redis://",
    "h:6379": "not a URL",
    "http://h": "not a URL such as redis://",
    "redis:h": "not a URL",
    " redis://h": "blanks or quotes",
    "redis://h\n": "blanks or quotes",
    '"redis://h"': "blanks or quotes",
    "'redis://h'": "blanks or quotes",
    "redis://h /0": "no blanks",
    "redis://h/0\x00": "control characters",
    "redis://h:port/0": "not a URL",
    "redis://h:0/0": "from 1 to 65535",
    "redis://h:65536/0": "not a URL",
    "redis://:hu/sh@h:6379/0": "write",
    "redis://:hush?x@h:6379/0": "not a URL",
    "redis://:hush#x@h:6379/0": "%23",
    "redis://h/zero": "the database behind the / is a number",
    "redis://h/-1": "the database behind the / is a number",
    "redis://h/0/1": "the database behind the / is a number",
    "redis://h/99999999999999999999": "the database behind the / is a number",
    "REDIS://h/0": "not a URL such as redis://",
    "redis://h?db=zero": "the option db is a number",
    **{
        f"redis{tls}://h?{option}={value}": f"the option {option} is {what}"
        for tls, options, values, what in [
            (
                "",
                ["db", "max_connections", "health_check_interval"],
                ["", "-1", "1.5", "long", "٣", "1" * 20],
                "a number",
            ),
            (
                "",
                ["socket_timeout", "socket_connect_timeout"],
                ["", "0", "-1", "nan", "inf", "1e30", "long"],
                "a number of",
            ),
            ("", ["max_connections"], ["0"], "a number from 1 on"),
            ("", ["client_name"], ["a%20b", "%C3%A4", "a%0Ab"], "printable"),
            ("", ["socket_keepalive"], ["", "perhaps"], "true or false"),
            ("s", ["ssl_check_hostname"], ["", "perhaps"], "true or false"),
            ("s", ["ssl_cert_reqs"], ["", "perhaps"], "none, optional or required"),
            ("s", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"], ["", "/nowhere/x.pem", "/"], "a file"),
            ("s", ["ssl_ca_path"], ["", "/nowhere", __file__], "a folder"),
        ]
        for option in options
        for value in values
    },
    f"rediss://h?ssl_keyfile={__file__}": "ssl_certfile is missing",
    "redis://h?colour=blue": "the option 'colour' is none",
    "redis://h?decode_responses=true": "the option 'decode_responses' is none that may be set here",
    "redis://h?ssl_ca_certs=/x": "the option 'ssl_ca_certs' is for rediss://",
    "unix://": "names a socket",
}


@pytest.mark.parametrize("url", GOOD)
def test_good_addresses(url: str) -> None:
    check_redis_url(url)
    connect(url).close()


@pytest.mark.parametrize(("url", "said"), BAD.items())
def test_bad_addresses(url: str, said: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - below
        check_redis_url(url)
    message = str(raised.value)
    assert said in message or (said == "write" and "to be written" in message)
    assert "\n" not in message
    assert "hu" not in message
    with pytest.raises(ModelStoreError):
        connect(url)


def test_every_option_that_is_refused_is_named() -> None:
    for name in {*_OPTIONS, *_TLS_OPTIONS} - {"username", "password", "ssl_password"}:
        with pytest.raises(ValueError, match=f"the option {name} "):
            check_redis_url(f"rediss://h?{name}=%00")
