"""Which addresses of a Redis are taken; of the others, what is said, which is never a secret."""

import pytest

from model_store.errors import ModelStoreError
from model_store.redis_connection import connect
from model_store.redis_url import check_redis_url

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
    "rediss://h:6380/0?ssl_ca_certs=/etc/ca.pem",
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
    "redis://:sec/ret@h:6379/0": "write",
    "redis://:secret?x@h:6379/0": "not a URL",
    "redis://:secret#x@h:6379/0": "%23",
    "redis://h/zero": "the database behind the / is a number",
    "redis://h/-1": "the database behind the / is a number",
    "redis://h/0/1": "the database behind the / is a number",
    "redis://h?db=zero": "the option db is a number",
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
    assert "sec" not in message
    with pytest.raises(ModelStoreError):
        connect(url)


@pytest.mark.parametrize(
    "url", ["rediss://h?ssl_cert_reqs=perhaps", "redis://h?socket_timeout=long", "redis://h?health_check_interval=x"]
)
def test_values_that_only_the_library_knows(url: str) -> None:
    with pytest.raises(ModelStoreError, match="the address of Redis: "):
        connect(url)
