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

"""A Rucio server in Apache and mod_wsgi, from Debian's packages, with examples/apache/rucio-s3.conf."""

import os
import pwd
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

from .ca import CA
from .files import Sections
from .rucio_server import RucioServer

EXAMPLE = Path(__file__).parents[2] / 'examples' / 'apache' / 'rucio-s3.conf'
PROGRAM = Path('/usr/sbin/apache2')
MODULES = Path('/usr/lib/apache2/modules')
LOADED = ('mpm_event', 'authz_core', 'authz_host', 'headers', 'socache_shmcb', 'ssl', 'unique_id', 'wsgi')
# Apache and mod_wsgi do not serve as root: in a namespace of its own, root is another user who may read the same files.
_USER = 'daemon'
_UNSHARED = ('unshare', '--user', f'--map-user={_USER}', f'--map-group={_USER}', '--')

_REST = """
ServerRoot {folder}
PidFile apache.pid
ErrorLog apache.log
WSGISocketPrefix {folder}/wsgi
Mutex file:{folder}
SSLSessionCache shmcb:{folder}/tls
ServerName 127.0.0.1
LogLevel info
"""


def missing() -> str | None:
    """Why there can be no Apache here: the reason of a skipped test."""
    if not PROGRAM.exists() or not (MODULES / 'mod_wsgi.so').exists():
        return 'Apache with mod_wsgi is not installed: apt-get install --no-install-recommends apache2-bin libapache2-mod-wsgi-py3'
    version = f'{sys.version_info.major}.{sys.version_info.minor}'
    if not (MODULES / 'mod_wsgi.so').resolve().name.endswith(f'-{version}'):
        return f'the installed mod_wsgi is not for Python {version}'
    if os.geteuid() == 0 and subprocess.run([*_UNSHARED, 'true'], capture_output=True, check=False).returncode:
        return 'Apache does not serve as root, and user namespaces are not allowed here'
    return None


class Apache(RucioServer):
    """As its base, but for Apache in the place of gunicorn, and https with a certificate of the CA."""

    def __init__(self, directory: 'str | os.PathLike[str]', ca: CA, config: Sections | None = None) -> None:
        super().__init__(directory, config)
        self.url = f'https://127.0.0.1:{self.port}'
        self.ca_bundle = ca.bundle
        self._ca = ca

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, 'RUCIO_HTTPD_ENCODED_SLASHES_NO_DECODE': 'true'}

    def _command(self) -> list[str]:
        return [*(_UNSHARED if os.geteuid() == 0 else ()), str(PROGRAM), '-D', 'FOREGROUND', '-f', str(self.directory / 'apache.conf')]

    def _write_files(self) -> None:
        super()._write_files()
        example = EXAMPLE.read_text()
        changes = {
            'RUCIO_HOST': '127.0.0.1',
            'RUCIO_PORT': self.port,
            'RUCIO_USER': _USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name,
            'RUCIO_VENV': sys.prefix,
            'RUCIO_CODE': Path(sysconfig.get_path('purelib')) / 'rucio',
            'RUCIO_CERTIFICATE': self._ca.certificate,
            'RUCIO_CERTIFICATE_KEY': self._ca.key,
            'PROMETHEUS_HOST': '127.0.0.1',
        }
        for name, value in changes.items():
            example, found = re.subn(rf'^Define {name} .*$', f'Define {name} {value}', example, flags=re.MULTILINE)
            assert found == 1, name
        # The tests' Python may be another build than the one that mod_wsgi is linked to.
        library = Path(sysconfig.get_config_var('LIBDIR')) / (sysconfig.get_config_var('INSTSONAME') or '')
        first = f'LoadFile {library}\n' if library.is_file() and library.suffix != '.a' else ''
        modules = ''.join(f'LoadModule {name}_module {MODULES}/mod_{name}.so\n' for name in LOADED)
        # Only on this machine: the example would listen everywhere.
        example = example.replace('# Listen ${RUCIO_PORT}', 'Listen 127.0.0.1:${RUCIO_PORT}')
        (self.directory / 'apache.conf').write_text(first + modules + _REST.format(folder=self.directory) + example)
