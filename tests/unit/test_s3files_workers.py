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

"""Processes that transfer small files. Each test is a program of its own: only one without threads makes processes."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, threading
from rucio.client.s3files import workers
from rucio.client.s3files.tally import Tally, Uploaded

tally, begun, hanging = Tally(Uploaded()), [], os.pipe()
moved = []
tally.step = moved.append

def do(batch):
    return [each for each in batch if handle(each)]

def handle(each):
    if each == 'kill':
        os.kill(os.getpid(), signal.SIGKILL)
    if each == 'bug':
        raise LookupError('of the work')
    if each == 'hang':
        told, tells = os.pipe()
        os.set_blocking(tells, False)
        signal.set_wakeup_fd(tells)
        os.write(hanging[1], b'x')
        os.read(told, 1)  # until there is a signal
        assert tally.stop.is_set()
    if isinstance(each, str):
        tally.fail(each, 'failed', again=True)
        return False
    tally.count(sent=1, sent_bytes=each)
    tally.step(each)
    assert begun == [os.getpid()]
    return True

def start(number=2):
    return workers.Workers(number, tally, lambda: begun.append(os.getpid()), do, str)

def results(futures):
    return [each for future in futures for each in future.result()]

def no_child_is_left():
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        return True
"""
MANY_PROCESSORS = pytest.mark.skipif(not hasattr(os, 'sched_getaffinity') or len(os.sched_getaffinity(0)) < 2, reason='this machine has one processor')


def run(program: str) -> str:
    done = subprocess.run([sys.executable, '-c', PROGRAM + program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ''), done.stderr
    return done.stdout


def test_what_processes_do_is_counted_together() -> None:
    run("""
team = start(3)
assert sorted(results(team.submit(list(range(200))))) == list(range(200))
assert results(team.submit(['no'])) == []
assert results(team.submit([])) == []
team.close()
summary = tally.summary
assert (summary.sent, summary.sent_bytes, sum(moved)) == (200, 19900, 19900), summary
assert summary.failures == [('no', 'failed')] and not begun
assert no_child_is_left()
""")


def test_the_tasks_of_a_killed_process_fail_and_the_others_go_on() -> None:
    run("""
team = start()
assert results(team.submit(['kill', 'kill'])) == []
assert [name for name, _ in tally.summary.failures] == ['kill', 'kill']
assert 'was killed' in tally.summary.failures[0][1]
assert results(team.submit([7])) == []  # nobody is left: it says so, and does not wait
assert len(tally.summary.failures) == 3
team.close()
assert no_child_is_left()
""")


def test_only_the_batch_of_a_killed_process_fails() -> None:
    run("""
team = start(3)
assert len(results(team.submit(['kill'] + list(range(1000))))) > 1000 - workers.BATCH
assert len(tally.summary.failures) <= workers.BATCH and not tally.stop.is_set()
team.close()
""")


def test_no_file_of_a_process_that_was_told_to_end_is_lost_in_silence() -> None:
    run("""
team = start()
futures = team.submit(['hang', 1])
os.read(hanging[0], 1)
for process in team._processes:
    os.kill(process.pid, signal.SIGTERM)
done = results(futures)
assert {name for name, _ in tally.summary.failures} | set(map(str, done)) == {'hang', '1'}, (tally.summary, done)
assert 'hang' in {name for name, _ in tally.summary.failures}
team.close()
""")


def test_where_the_system_allows_no_process_there_are_none() -> None:
    run("""
import multiprocessing.popen_fork
def refuse(*_):
    raise BlockingIOError(11, 'Resource temporarily unavailable')
os.fork = refuse
assert workers.Workers.start(2, tally, lambda: None, do, str) is None
""")


def test_an_error_that_cannot_be_sent_comes_as_its_text() -> None:
    run("""
from rucio.common.exception import RucioException
class Odd(RucioException):
    def __init__(self, one, two):
        super().__init__(f'{one} and {two}')
class Refusing(Exception):
    def __reduce__(self):
        raise TypeError
assert str(workers._portable(Odd('a', 'b')).args[0]).endswith('a and b')
try:
    raise Refusing('c')
except Refusing as error:
    assert 'Refusing: c' in str(workers._portable(error))
""")


def test_requests_of_all_processes_are_those_of_one_command() -> None:
    run("""
from rucio.common.s3.request_ids import current
mine = current()
def handle(each):
    assert current() == mine
    return True
team = start()
assert results(team.submit([1, 2])) == [1, 2]
team.close()
""")


def test_processes_end_when_their_parent_fails() -> None:
    done = subprocess.run([sys.executable, '-c', PROGRAM + 'team = start()\nraise KeyboardInterrupt'], capture_output=True, timeout=30, check=False)
    assert done.returncode


def test_an_error_of_the_program_is_raised_here() -> None:
    run("""
team = start()
(future,) = team.submit(['bug'])
try:
    future.result()
except LookupError as error:
    assert str(error) == "'of the work'" or str(error) == 'of the work'
else:
    raise AssertionError
assert results(team.submit([1])) == [1]
team.close()
""")


# The main thread of an upload closes nothing before those have ended who wait for results.
@pytest.mark.parametrize('waits_first', [False, True])
def test_a_stop_ends_what_is_under_way(waits_first: bool) -> None:
    run(f"""
team = start()
futures = team.submit(['hang', 'hang'])
os.read(hanging[0], 1), os.read(hanging[0], 1)
tally.stop.set()
if {waits_first}:
    assert results(futures) == []
team.close()
assert no_child_is_left()
assert results(futures) == []
""")


def test_failures_in_a_row_stop_it_across_batches() -> None:
    run("""
team = start()
for _ in range(4):
    results(team.submit(['no'] * 30))
assert tally.stop.is_set()
team.close()
""")


def test_a_success_interrupts_a_row_of_failures() -> None:
    run("""
team = start()
for _ in range(4):
    results(team.submit(['no'] * 30 + [1]))
    results(team.submit([1] + ['no'] * 30))
assert not tally.stop.is_set()
team.close()
""")


def test_processes_end_with_their_parent() -> None:
    done = subprocess.Popen(
        [sys.executable, '-c', PROGRAM + "team = start()\nprint(*(each.pid for each in team._processes), flush=True)\nsys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert done.stdin is not None
    assert done.stdout is not None
    children = [int(each) for each in done.stdout.readline().split()]
    done.kill()
    done.wait()
    assert len(children) == 2
    assert done.stdout.read() == ''  # the end of the pipe: none of them has it any more
    done.stdin.close()
    done.stdout.close()


@MANY_PROCESSORS
def test_only_a_process_without_threads_is_copied() -> None:
    run("""
assert workers.processes(None) >= 2
assert workers.processes(1) == 0
end = threading.Event()
thread = threading.Thread(target=end.wait)
thread.start()
assert workers.processes(None) == 0
end.set()
thread.join()
""")
