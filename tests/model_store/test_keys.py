import pytest

from model_store.keys import Keys


def test_keys() -> None:
    keys = Keys()
    assert keys.live == "tidemill:{model}:live" == keys.alias("champion")
    assert keys.manifest(118) == "tidemill:{model}:manifest:118"
    assert keys.log == "tidemill:{model}:log"
    assert keys.blob("ab") == "tidemill:blob:ab"
    assert Keys(model="b", prefix="shop").alias("x") == "shop:{b}:alias:x"
    for bad in ("", "{", "a}", "a\n"):
        with pytest.raises(ValueError, match="name"):
            Keys(model=bad)
