"""What a real broker lets anybody do, for tests of what it refuses."""

from typing import Any

from confluent_kafka import admin
from confluent_kafka.admin import AdminClient

_admin: Any = admin  # its classes of access control are not in `__all__`

AUTHORIZER = (
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found=true",
)
"""Settings of a broker that has one."""


class Acls:
    def __init__(self, bootstrap: str) -> None:
        self._client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})

    def allow(self, kind: str, name: str, operation: str) -> None:
        """To anybody; and so all other operations on it are denied. `kind`: TOPIC or GROUP."""
        rule = _admin.AclBinding(
            _admin.ResourceType[kind],
            name,
            _admin.ResourcePatternType.LITERAL,
            "User:ANONYMOUS",
            "*",
            _admin.AclOperation[operation],
            _admin.AclPermissionType.ALLOW,
        )
        for done in self._client.create_acls([rule]).values():
            done.result()
