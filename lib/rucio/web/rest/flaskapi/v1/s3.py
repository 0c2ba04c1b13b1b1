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

"""The REST interface of S3 storages, enabled by ``[api] endpoints_add = s3`` in the server's rucio.cfg.

The parameters and answers of each route are defined in :mod:`rucio.common.s3.api`; here, the routes are mapped to
gateway functions.
"""

from typing import TYPE_CHECKING, Any, Optional

from flask import Blueprint, Flask, request

from rucio.common.constants import DEFAULT_VO
from rucio.common.s3 import UNTESTED, api
from rucio.common.s3.answers import line_logger
from rucio.common.s3.roles import STS_PATH
from rucio.gateway import s3 as gateway
from rucio.gateway import s3files, s3health, s3imports, s3reconcile, s3shares
from rucio.web.rest.flaskapi.v1.s3base import add_routes, authenticate, never_cached, view
from rucio.web.rest.flaskapi.v1.s3sts import STS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flask.typing import ResponseReturnValue

    from rucio.common.s3.contract import Request
    from rucio.web.rest.flaskapi.v1.s3base import Handler


def _version(*_: Any, **__: Any) -> api.Version:
    return {'version': api.version(), 'capabilities': sorted(route.operation() for route in HANDLERS)}


# These also answer requests without a token.
OPEN = frozenset({api.GetHealth.path})

HANDLERS: 'dict[type[Request[Any]], Handler]' = {
    api.GetVersion: _version,
    api.GetHealth: s3health.get_health,
    api.ListRSEs: gateway.list_rses,
    api.GetRSE: gateway.get_rse,
    api.ProbeRSE: gateway.probe_rse,
    api.MakeBucket: gateway.make_bucket,
    api.ListBuckets: gateway.list_buckets,
    api.RemoveBucket: gateway.remove_bucket,
    api.Locate: gateway.locate,
    api.Choose: gateway.choose,
    api.GetCredentials: gateway.get_credentials,
    api.Sign: gateway.sign,
    api.ListGrants: gateway.list_grants,
    api.AddGrant: gateway.add_grant,
    api.DeleteGrant: gateway.delete_grant,
    api.ListUsable: s3shares.list_usable,
    api.ListShared: s3shares.list_shared,
    api.GetBucketPolicy: gateway.get_bucket_policy,
    api.SetBucketPolicy: gateway.set_bucket_policy,
    api.DeleteBucketPolicy: gateway.delete_bucket_policy,
    api.Reconcile: s3reconcile.reconcile,
    api.ReconcileFiles: s3reconcile.reconcile_files,
    api.LookUpFiles: s3files.look_up_files,
    api.RegisterFiles: s3files.register_files,
    api.RemoveFiles: s3files.remove_files,
    api.ImportBucket: s3imports.import_bucket,
    api.GetBucketSettings: s3reconcile.get_settings,
    api.SetBucketSettings: s3reconcile.set_settings,
    api.ListChanges: s3reconcile.list_changes,
}


def blueprint(with_doc: bool = False) -> Blueprint:
    """Return the blueprint of the routes that need a token.

    :param with_doc: For the documentation: all routes, without those that end with a slash.
    """
    if UNTESTED:
        line_logger(__name__).warning('S3: %s', UNTESTED)
    bp = Blueprint('s3', __name__, url_prefix='/s3')
    bp.before_request(authenticate)
    paths = dict.fromkeys(route.path for route in HANDLERS)
    return _filled(bp, [path for path in paths if with_doc or path not in OPEN], with_doc)


def blueprint_legacy() -> Blueprint:
    """Return the blueprint of the routes that need no token. A wrong token is refused nevertheless.

    The STS has it in the body. Rucio looks for this name; it has no other one for a second blueprint of a module.
    """
    bp = Blueprint('s3open', __name__, url_prefix='/s3')
    bp.before_request(_authenticate_if_asked)
    add_routes(bp, STS_PATH, STS, with_doc=False)
    return _filled(bp, sorted(OPEN), with_doc=False)


def _authenticate_if_asked() -> 'Optional[ResponseReturnValue]':
    request.environ['issuer'], request.environ['vo'] = '', DEFAULT_VO
    return authenticate() if request.headers.get('X-Rucio-Auth-Token') else None


def _filled(bp: Blueprint, paths: 'Iterable[str]', with_doc: bool) -> Blueprint:
    for path in paths:
        here = {route: handler for route, handler in HANDLERS.items() if route.path == path}
        add_routes(bp, path, view(here), with_doc)
    bp.after_request(never_cached)
    return bp


def make_doc() -> Flask:
    """Return an application for Rucio's script that generates the REST documentation."""
    doc_app = Flask(__name__)
    doc_app.register_blueprint(blueprint(with_doc=True))
    return doc_app
