"""Which encoders there are. A new encoder is one line here."""

from typing import Literal

from service.model.encoders.decay import Decay
from service.model.encoders.encoder import Encoder
from service.model.encoders.gru import Gru
from service.model.encoders.transformer import Transformer

EncoderName = Literal["decay", "gru", "transformer"]


def encoder_of(name: EncoderName, *, layers: int, heads: int) -> Encoder:
    """The encoder of this name. `layers` and `heads` are the transformer's."""
    if name == "decay":
        return Decay()
    return Gru() if name == "gru" else Transformer(layers, heads)
