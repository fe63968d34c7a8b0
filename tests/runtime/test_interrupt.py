import os
import signal

import pytest

from nanochat.runtime.interrupt import WATCHED, watch_signals


@pytest.mark.parametrize("number", WATCHED)
def test_a_signal_is_noted_and_said(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    with watch_signals() as flag:
        assert flag.name is None
        os.kill(os.getpid(), number)
        assert flag.name == number.name
    assert f"{number.name}: finishing this step, then saving" in capfd.readouterr().err


def test_the_first_one_counts() -> None:
    with watch_signals() as flag:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.name == "SIGUSR1"


def test_a_second_ctrl_c_ends() -> None:
    with pytest.raises(KeyboardInterrupt), watch_signals() as flag:
        os.kill(os.getpid(), signal.SIGINT)
        assert flag.name == "SIGINT"
        os.kill(os.getpid(), signal.SIGINT)


def test_the_former_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in WATCHED]
    with pytest.raises(ValueError), watch_signals():
        raise ValueError
    assert [signal.getsignal(number) for number in WATCHED] == before
