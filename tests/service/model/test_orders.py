"""The orders that need not learn, and the names of features that they and the ranker go by."""

from typing import cast

import numpy as np
import pytest

from service.model.channel import Channel
from service.model.channels.neighbours import Neighbours, NeighboursConfig
from service.model.channels.popularity import Popularity, PopularityConfig
from service.model.features import PRODUCTS, FeatureSet
from service.model.orders import BLENDS, NOTHING, simple_orders
from service.model.registry import NEW_MODEL

NEIGHBOURS: Channel = Neighbours(NeighboursConfig())
POPULARITY: Channel = Popularity(cast(PopularityConfig, NEW_MODEL.channels["popularity"]))
OTHER: Channel = Popularity(PopularityConfig(half_lives=(7.0, 70.0), events=True))


@pytest.mark.parametrize(
    ("channels", "alone", "blends"),
    [
        ([NEIGHBOURS, POPULARITY], ["neighbours", "popularity"], len(BLENDS)),
        ([NEIGHBOURS], ["neighbours"], sum(not any("popularity" in name for name in blend) for blend in BLENDS)),
        ([POPULARITY], ["popularity"], sum(not any("neighbours" in name for name in blend) for blend in BLENDS)),
        ([OTHER], ["popularity"], 0),  # no blend knows its half-lives
    ],
)
def test_each_channel_is_an_order_and_each_blend_whose_features_are_there(
    channels: list[Channel], alone: list[str], blends: int
) -> None:
    orders = simple_orders(channels, FeatureSet(channels))
    assert [order.name for order in orders if order.alone] == alone
    assert len([order for order in orders if not order.alone]) == blends
    assert orders[: len(alone)] == [order for order in orders if order.alone]
    assert len({order.name for order in orders}) == len(orders)


def test_every_blend_is_there_in_a_new_model() -> None:
    """Its half-lives are in the names of the blends' features."""
    names = FeatureSet([NEIGHBOURS, POPULARITY]).names
    assert {name for blend in BLENDS for name in blend} <= set(names)
    assert {name for pair in PRODUCTS for name in pair} - {"history.not_held"} <= set(names)


def test_a_blend_is_the_weighed_sum_and_a_channel_alone_lists_what_it_knows() -> None:
    features = FeatureSet([NEIGHBOURS, POPULARITY])
    x = np.random.default_rng(0).normal(size=(7, features.width)).astype(np.float32)
    share = features.column("neighbours.share")
    x[:3, share] = NOTHING
    alone, _, first, *_ = simple_orders([NEIGHBOURS, POPULARITY], features)
    assert alone.known(x).tolist() == [-np.inf] * 3 + x[3:, share].tolist()
    assert alone.scores(x).tolist() == x[:, share].tolist()
    wanted = sum(weight * x[:, features.column(name)] for name, weight in BLENDS[0].items())
    assert first.known(x) == pytest.approx(wanted, abs=1e-5)


def test_the_digest_is_of_names_in_their_order() -> None:
    both, turned = FeatureSet([NEIGHBOURS, POPULARITY]), FeatureSet([POPULARITY, NEIGHBOURS])
    assert sorted(both.names[: -len(PRODUCTS)]) == sorted(turned.names[: -len(PRODUCTS)])
    digests = [each.digest.tobytes() for each in (both, turned, FeatureSet([NEIGHBOURS]))]
    assert len(set(digests)) == 3
    assert both.digest.tobytes() == FeatureSet([NEIGHBOURS, POPULARITY]).digest.tobytes()
    assert both.digest.shape == (32,)
    assert both.digest.dtype == np.uint8
    with pytest.raises(KeyError, match=r"popularity\.count_301"):
        both.column("popularity.count_301")
