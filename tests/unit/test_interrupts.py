# Copyright European Organization for Nuclear Research (CERN) since 2012
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#    http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

import signal
import threading

import pytest

from rucio.common.s3.interrupts import Flag, cleaning_up, ending_by_exception, uninterrupted

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handlers():
    """What a process begins with, and what the tests' own had."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ALL}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def raise_handled(number):
    """A signal, unless it would end the tests."""
    assert signal.getsignal(number) is not signal.SIG_DFL
    signal.raise_signal(number)


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_what_would_end_the_process_is_an_exception(number, code):
    with pytest.raises(SystemExit) as caught, ending_by_exception():
        raise_handled(number)
    assert caught.value.code == code
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_programs_own_handler_stays(number):
    seen = []
    signal.signal(number, lambda *_: seen.append(number))
    with ending_by_exception():
        signal.raise_signal(number)
    assert seen == [number]


def test_nohup_stays():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ending_by_exception():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_ctrl_c_is_an_exception_on_request():
    def handler(*_):
        raise TypeError

    signal.signal(signal.SIGINT, handler)
    with pytest.raises(KeyboardInterrupt), ending_by_exception(ctrl_c=True):
        signal.raise_signal(signal.SIGINT)
    # Seen with `rucio s3 upload`: while it waited for its threads, a second Ctrl-C showed the traceback of Rucio's handler.
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_pythons_own_handler_of_ctrl_c_comes_back():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ending_by_exception(ctrl_c=True):
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize('number', ALL)
def test_a_clean_up_is_not_interrupted(number):
    def handler(*_):
        raise TypeError

    signal.signal(number, handler)
    with cleaning_up():
        signal.raise_signal(number)
    assert signal.getsignal(number) is handler


def test_a_handler_that_python_has_not_set_is_left_alone(monkeypatch):
    """It could not be set again."""
    monkeypatch.setattr(signal, 'getsignal', lambda _: None)
    monkeypatch.setattr(signal, 'signal', lambda *_: pytest.fail('set'))
    with ending_by_exception(ctrl_c=True), cleaning_up():
        pass
    monkeypatch.undo()


def test_other_threads_may_not_set_handlers():
    done = []

    def work():
        with ending_by_exception(ctrl_c=True), cleaning_up():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def test_what_is_not_interrupted_is_told():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stop, told = threading.Event(), []

    def work():
        signal.raise_signal(signal.SIGINT)
        told.append(stop.wait(30))

    with pytest.raises(KeyboardInterrupt):
        uninterrupted(work, stop)
    assert told == [True]


def test_what_is_not_interrupted_returns_and_raises_as_it_is():
    stop = threading.Event()

    def late():
        raise TimeoutError('its own')

    assert uninterrupted(threading.current_thread, stop) is not threading.current_thread()
    with pytest.raises(TimeoutError, match='its own'):
        uninterrupted(late, stop)
    assert not stop.is_set()


def test_another_thread_does_it_itself():
    done = []

    def work():
        done.append(uninterrupted(threading.current_thread, threading.Event()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [thread]


def test_what_runs_apart_starts_processes_that_hear_signals():
    assert uninterrupted(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()), threading.Event()) == set()


def test_a_flag_can_be_set_more_than_once():
    flag = Flag()
    assert not flag.wait(-1)
    flag.set()
    flag.set()
    assert flag.is_set()
    assert flag.wait(0)
    assert flag.wait(30)
