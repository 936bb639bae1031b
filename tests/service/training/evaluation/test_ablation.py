import pytest

from service.model.registry import KINDS, NETWORK, NEW_MODEL, UnknownConfig
from service.training.evaluation.ablation import WrongChange, changed
from service.training.learner import Learner

LAST = list(NEW_MODEL.channels)[-1]  # no channel comes after it, so none needs it


def test_nothing_changes_nothing() -> None:
    assert changed(NEW_MODEL).to_json() == NEW_MODEL.to_json()


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ("history.length=7", ("history", "length"), 7),
        ("seed=5", ("seed",), 5),
        ("limits.max_items=1e3", ("limits", "max_items"), 1000),
        ("limits.max_items=null", ("limits", "max_items"), None),
        ("history.rating_scale=[1,5]", ("history", "rating_scale"), [1.0, 5.0]),
        ("history.event_weights.click=0.5", ("history", "event_weights", "click"), 0.5),
        ("items.remember_unlisted=false", ("items", "remember_unlisted"), False),
        ("ranker.share=0.5", ("ranker", "share"), 0.5),
        ("neighbours.slots=32", ("channels", "neighbours", "slots"), 32),
        ("popularity.half_lives=[3.5]", ("channels", "popularity", "half_lives"), [3.5]),
    ],
)
def test_a_change_changes_one_value(change: str, path: tuple[str, ...], value: object) -> None:
    found, wanted = changed(NEW_MODEL, changes=[change]).to_json(), NEW_MODEL.to_json()
    place = wanted
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    assert found == wanted


def test_of_two_changes_the_later_one_counts() -> None:
    assert changed(NEW_MODEL, changes=["seed=1", "history.length=3", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("off", "changes", "said"),
    [
        (["nobody"], [], "--off nobody: there is no such channel; there are .*popularity"),
        (list(KINDS), [], "--off leaves no channel"),
        ([], ["popularity"], "--set popularity: it is channel.option=value"),
        ([], ["=3"], "--set =3: it is channel.option=value"),
        ([], ["popularity.=3"], "it is channel.option=value"),
        ([], ["popularity=3"], "popularity has options: .*half_lives"),
        ([], ["nobody.option=3"], "there is no channel or section 'nobody'; there are .*popularity"),
        ([], ["channels.popularity.half_lives=3"], "there is no channel or section 'channels'"),
        ([], ["popularity.option=3"], "popularity has no option 'option'; there are .*half_lives"),
        ([], ["history.length.option=3"], "history.length has no option 'option'"),
        ([], ["history.length=long"], "--set history.length=long: HistoryConfig.length: Input should be a valid int"),
        ([], ["history.length=0"], "--set history.length=0: HistoryConfig.length: Input should be greater"),
        ([], ["seed=x"], "--set seed=x: "),
        ([], ["seed=[1]"], r"--set seed=\[1\]: "),
        ([LAST], [f"{LAST}.x=3"], "the channel is off"),
    ],
)
def test_what_cannot_be_is_refused_by_name(off: list[str], changes: list[str], said: str) -> None:
    with pytest.raises(WrongChange, match=said) as error:
        changed(NEW_MODEL, off, changes)
    assert "\n" not in str(error.value)


def test_a_channel_that_is_off_is_not_in_the_model() -> None:
    learner = Learner(changed(NEW_MODEL, [LAST]))
    assert LAST not in [channel.name for channel in learner.channels]
    assert len(learner.channels) == len(NEW_MODEL.channels) - 1


def test_the_model_says_which_channel_another_one_needs() -> None:
    with pytest.raises(UnknownConfig, match="popularity, which is off"):
        Learner(changed(NEW_MODEL, ["popularity"], ["network.candidates=100"]))


def test_setting_an_option_puts_a_channel_in() -> None:
    without = changed(NEW_MODEL, [LAST])
    option, value = next(iter(NEW_MODEL.to_json()["channels"][LAST].items()))
    found = changed(without, changes=[f"{LAST}.{option}={value}"])
    assert list(found.channels) == list(NEW_MODEL.channels)


def test_the_network_is_switched_on_as_a_setting_would() -> None:
    found = changed(NEW_MODEL, changes=["network.candidates=90", "network.dim=8"])
    assert found.channels == {**NEW_MODEL.channels, "network": NETWORK.model_copy(update={"candidates": 90, "dim": 8})}
    assert [channel.name for channel in Learner(found).channels] == ["neighbours", "popularity", "network"]


def test_without_popularity_neighbours_are_ranked() -> None:
    assert [channel.name for channel in Learner(changed(NEW_MODEL, ["popularity"])).channels] == ["neighbours"]
