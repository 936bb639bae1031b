from service.training.heartbeat import KILLED_AFTER_S, SAID_AFTER_S, Heartbeat


def test_silence_is_said_and_then_it_is_dead() -> None:
    heartbeat = Heartbeat()
    said: list[str | None] = []
    while not heartbeat.is_dead:
        heartbeat.listened(1.0, 1.0)
        said.append(heartbeat.trouble)
    assert len(said) == KILLED_AFTER_S
    assert said[: int(SAID_AFTER_S) - 1] == [None] * (int(SAID_AFTER_S) - 1)
    assert "silent for 5 s" in str(said[4])
    assert "silent for 25 s" in str(said[28])
    assert len(set(said)) == 7  # a line of the log each five seconds, not each second
    heartbeat.heard()
    assert (heartbeat.silent_s, heartbeat.trouble, heartbeat.is_dead) == (0.0, None, False)


def test_a_listener_that_was_held_up_says_nothing_of_the_feeder() -> None:
    heartbeat = Heartbeat()
    heartbeat.listened(3600.0, 0.02)  # the machine was suspended amid it
    assert heartbeat.trouble is None
