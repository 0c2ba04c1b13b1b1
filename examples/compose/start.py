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

"""What the containers of this example run: ``start.py server``, ``reconciler`` or ``client COMMAND``. Settings come from the environment.

The server makes its database, the RSE EXAMPLE_S3 and the accounts alice and bob when it starts for the first time.
"""

import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

HOME = Path(os.environ.get('RUCIO_HOME', '/opt/rucio'))
RSE = 'EXAMPLE_S3'

SERVER = """
[common]
loglevel = INFO
[database]
default = {database}
[alembic]
cfg = {home}/etc/alembic.ini
[bootstrap]
userpass_identity = root
userpass_pwd = {password}
[api]
endpoints_add = s3
[policy]
package = rucio_s3_policy
lfn2pfn_module = rucio.rse.s3translation
[monitor]
enable_metrics = False
[trace]
tracedir = {home}/trace
brokers =
port = 1
topic = none
username = none
password = none
[nongrid-trace]
tracedir = {home}/trace
brokers =
port = 1
topic = none
username = none
password = none
"""

ALEMBIC = """
[alembic]
script_location = rucio:db/sqla/migrate_repo
sqlalchemy.url = {database}
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = WARNING
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(levelname)s %(name)s %(message)s
"""

CLIENT = """
[client]
rucio_host = {url}
auth_host = {url}
auth_type = userpass
username = {user}
password = {password}
account = {user}
"""


def write(name: str, text: str) -> None:
    """Write a file that holds passwords."""
    path = HOME / 'etc' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def server() -> None:
    """Become the server."""
    configure()
    address = os.environ.get('BIND', '0.0.0.0:8080')
    os.execvp('gunicorn', ['gunicorn', '--bind', address, '--workers', '2', '--timeout', '300', 'rucio.web.rest.flaskapi.v1.main:application'])  # noqa: S606,S607


def reconciler(*options: str) -> None:
    """Become the daemon that registers what other clients put into buckets."""
    configure()
    os.execv(sys.executable, [sys.executable, '-m', 'rucio.daemons.s3.reconciler', *options])  # noqa: S606


def configure() -> None:
    """Write the configuration of the server and its daemons, and make the database where there is none."""
    (HOME / 'trace').mkdir(parents=True, exist_ok=True)
    # Both files are read with interpolation.
    database, password = (os.environ[name].replace('%', '%%') for name in ('DATABASE', 'RUCIO_PASSWORD'))
    write('rucio.cfg', SERVER.format(home=HOME, database=database, password=password))
    write('alembic.ini', ALEMBIC.format(database=database))
    os.environ['RUCIO_HOME'] = str(HOME)
    write_keys(make_catalogue())


def make_catalogue() -> str:
    """The database, the RSE and the accounts. The id of the RSE."""
    # Here, as importing them reads the configuration.
    from sqlalchemy import inspect  # noqa: PLC0415

    from rucio.common.exception import RSENotFound  # noqa: PLC0415
    from rucio.core.rse import get_rse_id  # noqa: PLC0415
    from rucio.db.sqla.constants import DatabaseOperationType  # noqa: PLC0415
    from rucio.db.sqla.session import db_session, get_engine  # noqa: PLC0415
    from rucio.db.sqla.util import build_database, create_base_vo, create_root_account  # noqa: PLC0415
    from rucio_s3_database import main as rucio_s3_database  # noqa: PLC0415

    if not inspect(get_engine()).has_table('vos'):
        build_database()
        create_base_vo()
        create_root_account()
    rucio_s3_database([])
    with db_session(DatabaseOperationType.WRITE) as session:
        try:
            return get_rse_id(RSE, session=session)
        except RSENotFound:
            rse_id = add_rse(session)
            for account in ('alice', 'bob'):
                add_user(account, rse_id, session)
            return rse_id


def add_rse(session: object) -> str:
    """What `rucio s3 rse add` does."""
    from rucio.core import rse  # noqa: PLC0415

    endpoint = urlsplit(os.environ['S3_ENDPOINT'])
    rse_id = rse.add_rse(RSE, session=session)
    rse.add_rse_attribute(rse_id, 'lfn2pfn_algorithm', 's3_bucket', session=session)
    rse.add_rse_attribute(rse_id, 'skip_upload_stat', 'True', session=session)
    every = {'read': 1, 'write': 1, 'delete': 1}
    role = {'role_arn': os.environ['S3_ROLE']} if os.environ.get('S3_ROLE') else {}
    protocol = {
        'scheme': endpoint.scheme,
        'hostname': endpoint.hostname,
        'port': endpoint.port,
        'prefix': '/',
        'impl': 'rucio.rse.protocols.s3.Default',
        'domains': {'lan': every, 'wan': every},
        'extended_attributes': {'s3': {'provider': os.environ['S3_PROVIDER'], **role}},
    }
    rse.add_protocol(rse_id, protocol, session=session)
    return rse_id


def add_user(name: str, rse_id: str, session: object) -> None:
    """An ordinary account with its scope, and no limit on the RSE."""
    from rucio.common.types import InternalAccount, InternalScope  # noqa: PLC0415
    from rucio.core.account import add_account  # noqa: PLC0415
    from rucio.core.account_limit import set_local_account_limit  # noqa: PLC0415
    from rucio.core.identity import add_account_identity, add_identity  # noqa: PLC0415
    from rucio.core.scope import add_scope  # noqa: PLC0415
    from rucio.db.sqla.constants import AccountType, IdentityType  # noqa: PLC0415

    account, email = InternalAccount(name), f'{name}@localhost'
    add_account(account, AccountType.USER, email, session=session)
    add_identity(name, IdentityType.USERPASS, email, os.environ['RUCIO_PASSWORD'], session=session)
    add_account_identity(name, IdentityType.USERPASS, account, email, default=True, session=session)
    add_scope(InternalScope(f'user.{name}'), account, session=session)
    set_local_account_limit(account, rse_id, -1, session=session)


def write_keys(rse_id: str) -> None:
    """Rucio's file of keys, by RSE id."""
    keys = {'access_key': os.environ['S3_ACCESS_KEY'], 'secret_key': os.environ['S3_SECRET_KEY'], 'signature_version': 's3v4', 'region': 'us-east-1'}
    write('rse-accounts.cfg', json.dumps({rse_id: keys}))


def client(*command: str) -> None:
    """Write the user's rucio.cfg and become the command."""
    password = os.environ['RUCIO_PASSWORD'].replace('%', '%%')
    write('rucio.cfg', CLIENT.format(url=os.environ['RUCIO_URL'], user=os.environ['RUCIO_USER'], password=password))
    os.environ['RUCIO_HOME'] = str(HOME)
    os.execvp(command[0], command)  # noqa: S606


if __name__ == '__main__':
    {'server': server, 'reconciler': reconciler, 'client': client}[sys.argv[1]](*sys.argv[2:])
