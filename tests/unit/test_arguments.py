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

"""DIDs in the command lines of other tools: what is translated, what is refused, and what is left alone."""

import re
import shlex

import pytest

from rucio.common.exception import InputValidationError, ScopeNotFound
from rucio.common.s3.arguments import Word, remotes_of_user, translated


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find(word):
    """The scopes user.alice and data_13TeV; datasets have names without a dot."""
    if word.scope in ('user.alice', 'data_13TeV'):
        return bool(word.name) and '.' not in word.name and '*' not in word.name
    if word.sure:
        raise ScopeNotFound(f"There is no scope '{word.scope}'.")
    return None


def shown(line, environ=None):
    return ' '.join(translated(shlex.split(line), environ or {}, find))


@pytest.mark.parametrize(
    ('line', 'expected'),
    [
        ('mc cp file.root user.alice:run7/file.root', 'mc cp file.root rucio/user.alice/run7/file.root'),
        ('mc ls user.alice:run7', 'mc ls rucio/user.alice/run7/'),
        ('mcli ls user.alice:run7/a.root', 'mcli ls rucio/user.alice/run7/a.root'),
        ('/usr/bin/minio-client ls user.alice:', '/usr/bin/minio-client ls rucio/user.alice/'),
        ('mc ls user.alice:/run7/', 'mc ls rucio/user.alice/run7/'),
        ('mc ls user.alice:/', 'mc ls rucio/user.alice/'),
        ('mc ls user.alice:v1.2/', 'mc ls rucio/user.alice/v1.2/'),
        ('mc mirror --overwrite user.alice:run7 copy', 'mc mirror --overwrite rucio/user.alice/run7/ copy'),
        ('mc ls user.alice:2024', 'mc ls rucio/user.alice/2024/'),
        ('aws s3 ls user.alice:run7/', 'aws s3 ls s3://user.alice/run7/'),
        ('aws s3 cp user.alice:a.root data_13TeV:a.root', 'aws s3 cp s3://user.alice/a.root s3://x--data-013-te-v/a.root'),
        ('s5cmd ls user.alice:run7/*', 's5cmd ls s3://user.alice/run7/*'),
        ('s3cmd put a user.alice:run7', 's3cmd put a s3://user.alice/run7/'),
        ('rclone lsf user.alice:run7', 'rclone lsf rucio:user.alice/run7/'),
    ],
)
def test_dids(line, expected):
    assert shown(line) == expected


@pytest.mark.parametrize(
    'line',
    [
        'sh -c "mc ls user.alice:run7"',
        'rucio download user.alice:run7',
        'python script.py user.alice:run7',
        'mc ls rucio/user.alice/run7/',
        'mc cp C:/file D:\\file',
        'mc cp --attr key=user.alice:run7 a b',
        'mc alias set mine https://s3.example.org KEY SECRET',
        'aws --endpoint-url localhost:9000 s3 ls',
        'aws s3 ls localhost:9000/x',
        'aws s3 cp a s3://user.alice/b --expires 2026-10-01T20:30:00Z',
        's3cmd put a s3://user.alice/b --add-header X-Name:value',
        'aws s3api get-object --bucket arn:aws:s3:::x --key a:b:c out',
        'rclone copy other:bucket/x rucio:user.alice/x',
        'rclone lsf :s3:user.alice/x',
        'rclone lsf user.bbo:x',  # it knows no such remote, and says so
        "aws s3 cp a s3://user.alice/b --metadata ''",
        'mc ls ./user.alice:run7',
    ],
)
def test_left_alone(line):
    assert shown(line) == ' '.join(shlex.split(line))


@pytest.mark.parametrize(
    ('line', 'why'),
    [
        ('mc cp file user.bbo:run7/file', "no scope 'user.bbo'"),
        ('mc cp file bbo:run7/file', "no scope 'bbo'"),
        ('aws s3 cp s3://user.alice/x user.bbo:x', "no scope 'user.bbo'"),
        ("mc cp file ''", 'An argument is empty'),
        ("rclone copy file ' '", 'An argument is empty'),
        ('mcli cp file https://s3.example.org/user.alice/file', 'write SCOPE:NAME'),
        ('mc cp file user.alice/run7/', "write 'user.alice:run7/'"),
        ('mc cp file user.alice', "write 'user.alice:'"),
        ('mc cp file rucio:user.alice/file', 'rucio/user.alice/file'),
    ],
)
def test_a_name_that_would_be_local_is_refused(line, why):
    with pytest.raises((InputValidationError, ScopeNotFound), match=why):
        shown(line)


def test_local_files(folder):
    (folder / 'user.alice:run7').mkdir()
    (folder / 'other:file').touch()
    with pytest.raises(InputValidationError, match=r"write '\./user\.alice:run7' for the file"):
        shown('mc cp --recursive user.alice:run7 user.alice:run8')
    assert shown('mc cp other:file user.alice:run7/x.root') == 'mc cp other:file rucio/user.alice/run7/x.root'
    assert shown('mc cp file user.alice:run7/x.root') == 'mc cp file rucio/user.alice/run7/x.root'
    (folder / 'user.carol').mkdir()
    assert shown('mc ls user.carol/x') == 'mc ls user.carol/x'


def test_remotes_and_aliases_of_ones_own(folder):
    (folder / 'config.json').write_text('{"aliases": {"user.carol": {}}}')
    assert shown('mc ls user.carol/x', {'MC_CONFIG_DIR': str(folder)}) == 'mc ls user.carol/x'
    (folder / 'rclone.conf').write_text('[user.alice]\ntype = s3\n')
    for environ in ({'RCLONE_CONFIG': str(folder / 'rclone.conf')}, {'RCLONE_CONFIG_USER.ALICE_TYPE': 's3'}):
        assert shown('rclone ls user.alice:x', environ) == 'rclone ls user.alice:x'


@pytest.mark.parametrize(
    ('line', 'word'),
    [
        ('mc ls user.alice:/run7/', Word('user.alice:/run7/', 'user.alice', 'run7', sure=True)),
        ('mc ls data:x', Word('data:x', 'data', 'x', sure=True)),
        ('mc ls data:X/RUNX/', Word('data:X/RUNX/', 'data', 'X/RUNX', sure=True)),
        ('mc ls data:', Word('data:', 'data', '', sure=True)),
        ('mc ls --option data:x', Word('data:x', 'data', 'x', sure=False)),
        ('mc ls --option group.x:x', Word('group.x:x', 'group.x', 'x', sure=True)),
        ('aws s3 ls data:9000', Word('data:9000', 'data', '9000', sure=False)),
        ('aws s3 ls data:9000/x', Word('data:9000/x', 'data', '9000/x', sure=False)),
        ('aws s3 ls data:99999', Word('data:99999', 'data', '99999', sure=False)),
        ('aws s3 ls data:100000', Word('data:100000', 'data', '100000', sure=True)),
        ('aws s3 ls data:9000x', Word('data:9000x', 'data', '9000x', sure=True)),
        ('rclone ls user.alice:x', Word('user.alice:x', 'user.alice', 'x', sure=False)),
        ('mc ls data:here', Word('data:here', 'data', 'here', sure=False)),
    ],
)
def test_what_is_looked_for(folder, line, word):
    """What cannot be anything else is refused if there is no such scope."""
    folder.joinpath('data:here').touch()
    seen = []
    assert ' '.join(translated(line.split(), {}, seen.append)) == line
    assert seen == [word]


@pytest.mark.parametrize('text', ['x:y', 'data://x', 'data:x:y', 'data:x\\y', 'rucio:data/x', '_a:x', 'data'])
def test_what_is_no_did_is_not_looked_for(text):
    assert translated(['aws', text, 'data:x y'], {}, lambda word: pytest.fail(word.text)) == ['aws', text, 'data:x y']


def test_the_first_word_is_the_program():
    assert translated(['mc'], {}, find) == ['mc']
    assert translated(['user.alice:run7', 'user.alice:run7'], {}, find) == ['user.alice:run7', 'user.alice:run7']


@pytest.mark.parametrize(
    'line',
    [
        'mc --attr=https://x ls',
        'mc alias set x https://h',
        'mc alias ls user.alice/run7',
        'rclone ls user.alice/run7',
        'rclone copyurl https://h/x user.alice:x.y',
        'mc cp users/x data.x/y',
    ],
)
def test_what_mc_and_rclone_understand_themselves(line):
    assert shown(line).split()[:2] == line.split()[:2]


def test_a_folder_like_a_scope_is_named(folder):
    with pytest.raises(InputValidationError, match=re.escape("'group.x/a/b' is a local name for mcli: write 'group.x:a/b' for the DID, or './group.x/a/b'")):
        shown('mcli ls group.x/a/b')
    with pytest.raises(InputValidationError, match=re.escape("write 'rucio/b/k'")):
        shown('mc ls rucio:b/k')
    folder.joinpath('rucio:b').touch()
    assert shown('mc ls rucio:b') == 'mc ls rucio:b'


def test_the_remotes_that_rclone_has(home):
    assert remotes_of_user({}) == set()
    assert remotes_of_user({'RCLONE_CONFIG_MY_S3_TYPE': 's3', 'RCLONE_CONFIG__TYPE': 'x', 'RCLONE_CONFIG_A_URL': 'x', 'XRCLONE_CONFIG_B_TYPE': 'y'}) == {
        'my_s3'
    }
    home.joinpath('.config', 'rclone').mkdir(parents=True)
    home.joinpath('.config', 'rclone', 'rclone.conf').write_text('[Mine]\n')
    assert remotes_of_user({'RCLONE_CONFIG_A_TYPE': 's3'}) == {'a', 'Mine'}
    home.joinpath('.config', 'rclone', 'rclone.conf').write_bytes(b'[\xff]\n')
    assert remotes_of_user({'RCLONE_CONFIG_A_TYPE': 's3'}) == {'a'}
