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

"""The roles that docs/operators.md tells operators to make: the servers of the tests have these very ones."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

_PAGE = Path(__file__).parents[2] / 'docs' / 'operators.md'


def _section(heading: str) -> str:
    """What stands below a heading, up to the next one of its level."""
    found = re.search(rf'^### {heading}\n(.*?)(?=^##)', _PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found, f'{_PAGE.name} has no section {heading}'
    return found[1]


def seaweedfs_roles() -> dict[str, Any]:
    """The file of `-s3.iam.config`; its signing key has to be replaced."""
    text = _section('SeaweedFS')
    parsed: dict[str, Any] = json.JSONDecoder().raw_decode(text, text.index('{"sts"'))[0]
    return parsed


def ceph_policies() -> tuple[str, str]:
    """The trust policy of the role, and what it may do."""
    trust, may = re.findall(r"""^ +'(\{"Version".*\})'$""", _section('Ceph'), re.MULTILINE)
    return trust, may


def minio_commands() -> list[str]:
    """The commands of mc that make the server's user."""
    return re.findall(r'^ +(mc [^#\n]*[^# \n])', _section('MinIO'), re.MULTILINE)


def minio_settings() -> dict[str, str]:
    """The settings of an RSE whose server is to vend keys."""
    return dict(re.findall(r'^ +(\w+) = (\S+)', _section('MinIO'), re.MULTILINE))


def ceph_user() -> list[str]:
    """What makes the user of the Rucio server, by radosgw-admin."""
    found = re.search('^ +radosgw-admin (user create .*)$', _section('Ceph'), re.MULTILINE)
    assert found
    return shlex.split(found[1])


def ceph_account() -> tuple[list[list[str]], list[str]]:
    """What makes an account of Ceph and its root user, by radosgw-admin, and the policies: of the server's user, whom the role trusts, what it may do."""
    text = _section('Ceph with accounts')
    commands = [shlex.split(line) for line in re.findall('^ +radosgw-admin (.*)$', text, re.MULTILINE)]
    return commands, re.findall(r"""^ +'(\{"Version".*\})'$""", text, re.MULTILINE)


def ceph_topics() -> tuple[str, str]:
    """What gateways that users reach offer, and what the role may do where that keeps its keys from topics (from Ceph 20 on)."""
    text = _section('Topics and vended keys')
    apis = re.search(r'rgw_enable_apis "(.*)"', text)
    policy = re.search(r"""^ +'(\{"Version".*\})'$""", text, re.MULTILINE)
    assert apis
    assert policy
    return apis[1], policy[1]
