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

"""moto's server, as a process of its own: it keeps all in memory, and asks nobody for keys."""

import importlib.metadata

from .boto import S3Server
from .files import clean_environment, command_path
from .process import Process


def missing() -> str:
    """Why there can be no such server here, or nothing."""
    try:
        command_path('moto_server')
    except FileNotFoundError:
        return 'moto_server is not installed (pip install "moto[s3,server]")'
    return ''


def version() -> str:
    """Of the package."""
    return importlib.metadata.version('moto')


class Moto(S3Server):
    """moto's S3."""

    role_arn = 'arn:aws:iam::123456789012:role/RucioVending'

    def _process_to_start(self) -> Process:
        command = [command_path('moto_server'), '-H', self.hostname, '-p', str(self.port)]
        return Process('moto', command, env=clean_environment(self.directory), cwd=self.directory, log=self.directory / 'moto.log')
