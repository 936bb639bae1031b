"""The model store of a process, from its settings: whoever publishes, reads or steers must mean the same one."""

from model_store.blob_folder import BlobFolder
from model_store.keys import Keys
from model_store.redis_connection import connect
from model_store.redis_store import RedisStore
from model_store.signature import Signer
from service.settings import CommonSettings


def model_store(settings: CommonSettings, *, checkpoint_url: str = "", adopt_unsigned: bool = False) -> RedisStore:
    """Over a connection of its own; nothing is opened yet.

    checkpoint_url, adopt_unsigned: for who goes on from versions; readers and commands need no trainer's blobs.

    Raises: ModelStoreError for a URL that is none.
    """
    keys = settings.signing_keys
    return RedisStore(
        connect(settings.redis_url),
        Keys(model=settings.model_name, prefix=settings.key_prefix),
        signer=Signer(keys, unsigned_too=adopt_unsigned) if keys else None,
        folder=BlobFolder(checkpoint_url) if checkpoint_url else None,
    )
