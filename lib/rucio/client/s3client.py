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


"""``S3Client``: the client of the S3 plugin of a Rucio server, for buckets, credentials and sharing."""

import re
import time
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone
from functools import cached_property
from json import dumps
from pathlib import Path
from secrets import choice
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Optional, TypeVar, cast

from botocore import UNSIGNED
from botocore.config import Config
from requests.exceptions import RequestException  # type: ignore[import-untyped]
from requests.status_codes import codes  # type: ignore[import-untyped]

from rucio.client.credentialclient import CredentialClient
from rucio.client.s3bulk import BulkClient
from rucio.client.s3session import Discreet
from rucio.common.exception import (
    InputValidationError,
    MissingDependency,
    RSENotFound,
    RSEOperationNotSupported,
    ServerConnectionException,
    ServiceUnavailable,
)
from rucio.common.s3 import (
    address,
    aiosession,
    api,
    authorizer,
    botocore_internals,
    credentials,
    factory,
    own_config,
    rucio_internals,
)
from rucio.common.s3.answers import checked, checked_keys, checked_signatures, printable
from rucio.common.s3.dates import from_text, to_text
from rucio.common.s3.endpoint import PERSON, Endpoint, Patience
from rucio.common.s3.secrecy import hide_in_logs, is_private, need_private
from rucio.common.s3.settings import of_server
from rucio.common.utils import build_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from botocore.credentials import Credentials
    from mypy_boto3_s3 import S3Client as Boto3S3
    from requests import Response  # type: ignore[import-untyped]

    from rucio.common.s3.contract import Request

__all__ = ['NO_PLUGIN', 'S3Client']

Answer = TypeVar('Answer')
RSEAnswer = TypeVar('RSEAnswer', bound=api.ListedRSE)
ReconcileAnswer = TypeVar('ReconcileAnswer', bound=api.Reconciled)

NO_PLUGIN = 'This Rucio server has no S3 plugin: ask the operator to set `[api] endpoints_add = s3`'


_NO_ROUTE = (codes.not_found, codes.not_allowed)
_LONGEST_REFUSAL = 4000  # characters of a server's error message


class _Told(dict[str, Any]):
    """The answer of a server. A missing field raises: the server may be older than this client."""

    def __init__(self, who: str, content: dict[str, Any]) -> None:
        super().__init__(content)
        self._who = who

    def __missing__(self, name: str) -> Any:
        raise RSEOperationNotSupported(
            f"{self._who} did not return '{name}': its S3 plugin is older than this client, {api.version()}. "
            'Ask the operator to update it.'
        )


class _DIDLocation(NamedTuple):
    """The location of a DID, and the storage that it is on."""

    endpoint: Endpoint
    ways: tuple[str, ...]  # how the server authorises its clients: vended, remote
    bucket: str
    key: str
    folder: str  # the key of a collection, or of the folder of a file


class S3Client(BulkClient, CredentialClient):
    """Manage buckets, credentials and sharing on S3 storages.

    The server needs the S3 plugin (``[api] endpoints_add = s3``); the account needs no keys. Any method can raise
    ``RSEOperationNotSupported`` if the plugin is missing, ``AccessDenied`` if the account is not allowed to do it (also
    for things that do not exist), and ``ServerConnectionException`` if the server does not answer. If the account sends
    too many requests, a call waits as long as the server asks it to, at most a minute; then it raises
    ``ResourceTemporaryUnavailable``. The client is thread-safe.
    """

    S3_BASEURL = 's3'
    # The seconds that a call waits in total if the server reports too many requests.
    PATIENCE: ClassVar[float] = 60

    # Stock Rucio does not verify certificates if the path of its CA is empty, as X509_CERT_DIR or ca_cert can be.
    @property
    def ca_cert(self) -> Any:
        """The CA of the Rucio server: a path, or True for the default ones."""
        return self._ca_cert

    @ca_cert.setter
    def ca_cert(self, path: Any) -> None:
        self._ca_cert = True if path == '' else path

    @property
    def session(self) -> Discreet:
        """The HTTP session for requests to the Rucio server."""
        return self._session

    @session.setter
    def session(self, _: Any) -> None:
        self._session = Discreet()

    def __init__(
        self,
        resource: str = 's3',
        endpoint_url: Optional[str] = None,
        key_id: Optional[str] = None,
        secret_key: Optional[str] = None,
        config: Optional[Config] = None,
        region: Optional[str] = None,
        **kwargs: Any,
    ) -> None:
        """Log in to Rucio. Sends no request if there is a token already.

        Without any of the parameters below, the Rucio server provides the storage's URL and short-lived keys for it, or
        signs the requests. This is better than keys in a program: nobody has to keep them, they expire, and they allow
        no more than the account may do. With ``endpoint_url`` or keys, :meth:`boto3_client` and :meth:`get_signed_url`
        use those, and send no request to the server.

        Parameters
        ----------
        resource :
            The service for which :meth:`boto3_client` makes clients, if ``endpoint_url`` or keys are given.
        endpoint_url :
            The storage's URL, such as ``https://s3.example.org:9000``.
        key_id :
            The access key. By default, boto3 searches its usual places (environment, ``~/.aws``).
        secret_key :
            The secret key.
        config :
            The configuration for :meth:`boto3_client`, merged into ``Config(signature_version='s3v4')``.
        region :
            The region to sign for. The default is that of the storage.
        kwargs :
            The parameters of ``rucio.client.Client``: ``rucio_host``, ``account``, ``auth_type``, ``creds``, ``vo``...

        Raises
        ------
        InputValidationError
            If only one of key_id and secret_key is given.
        """
        if bool(key_id) != bool(secret_key):
            raise InputValidationError(
                'S3Client got only one of key_id and secret_key. '
                'Give both, or neither to have the Rucio server authorise the requests.'
            )
        self._resource = resource
        self._endpoint_url = endpoint_url
        self._region = region
        self._keys = (key_id, secret_key)
        self._config = Config(signature_version='s3v4').merge(config or Config())
        super().__init__(**kwargs)

    @property
    def identity(self) -> str:
        """Server, VO and account: equal for clients with equal access. It contains no secret."""
        return f'{self.host} {self.vo} {self.account}'

    @property
    def _who(self) -> str:
        return f'The Rucio server at {self.host}'

    def get_s3_version(self) -> api.Version:
        """Return version and capabilities of the server's plugin. One request.

        Returns
        -------
            version, and capabilities: the names of the operations that it supports, such as make_bucket.
        """
        return self._ask(api.GetVersion())

    def get_s3_health(self) -> api.Health:
        """Return whether the server can reach the storages; for admins, the state of each S3 RSE. One request.

        It is what the process of the server that answers has observed: another one may differ.

        Returns
        -------
            status (ok, or degraded: a storage is silent), version, and for admins storages: rse, state, silent,
            answered, failed, failure, failure_id, vended and waiting_since of each RSE.
        """
        return self._ask(api.GetHealth())

    # Storages

    def list_s3_rses(self) -> list[api.ListedRSE]:
        """List the S3 RSEs of the server. One request.

        Returns
        -------
            For each RSE the fields of :meth:`get_s3_rse`.
        """
        return [self._open(told) for told in self._ask(api.ListRSEs())]

    def get_s3_rse(self, rse: str) -> api.DescribedRSE:
        """Describe how to reach an RSE. One request.

        Parameters
        ----------
        rse :
            The name of the RSE.

        Returns
        -------
            rse, url, provider, region, addressing, bucket_prefix, verifies_body, auth (the ways that the server offers:
            vended, unless it is reached by http; remote), sts_url, web_identity_role_arn, role_chaining (whether vended
            keys can gain more access, or None).

        Raises
        ------
        RSENotFound
            If there is no such RSE, or it is not an S3 storage.
        """
        return self._open(self._ask(api.GetRSE(rse=rse)))

    def probe_s3_rse(self, rse: str, part: str) -> api.Probed:
        """Let the server find out what the storage of an RSE does, with its own keys. One request; only for admins.

        Parameters
        ----------
        rse :
            The name of the RSE.
        part :
            What to try: writing, integrity, names, objects or signatures. Each takes some seconds.

        Returns
        -------
            bucket, left (what could not be removed) and answers (behaviour, answer).
        """
        return self._ask(api.ProbeRSE(rse=rse, part=part))

    def endpoint(self, rse: str) -> Endpoint:
        """Return the endpoint of an RSE: the server's description, with the settings of rucio.cfg on this machine.

        One request.

        Parameters
        ----------
        rse :
            The name of the RSE.
        """
        return self._storage(rse)[0]

    def locate(self, scope: str, name: str, rse: Optional[str] = None) -> list[api.Location]:
        """Find where a DID is, or would be created. One request.

        Parameters
        ----------
        scope :
            The scope of the DID.
        name :
            The name of the DID; empty for the scope's bucket.
        rse :
            Return only the location on this RSE.

        Returns
        -------
            rse, bucket, key and url of each location, the best first.

        Raises
        ------
        RSENotFound
            If it is not on ``rse``.
        """
        places = self._ask(api.Locate(scope=scope, name=name))
        if rse is None:
            return places
        here = [place for place in places if place['rse'] == rse]
        if not here:
            known = ', '.join(sorted({place['rse'] for place in places})) or 'no S3 storage'
            raise RSENotFound(f"{scope}:{name} is not on RSE '{rse}', but on: {known}.")
        return here

    def best_place(self, scope: str, name: str, rse: Optional[str] = None, read: bool = False) -> api.Location:
        """Return the one location of a DID that is meant if there are several: its RSE is the one that all methods use.

        That is ``rse``; else the RSE that has the bucket or collection, if there is only one; else ``default_rse`` of
        rucio.cfg on this machine, then that of the server. One request, and one of the server to each storage if there
        are several.

        Parameters
        ----------
        scope :
            The scope of the DID.
        name :
            The name of the DID; empty for the scope's bucket.
        rse :
            The RSE.
        read :
            It is only read: if the catalogue has it on several RSEs, any of them will do.

        Raises
        ------
        RSENotFound
            If there is none, or it is on others than ``rse``.
        InvalidObject
            If there are several: the message names them.
        """
        return self._ask(
            api.Choose(
                scope=scope, name=name, rse=rse or None, default_rse=of_server('default_rse') or None, reading=read
            )
        )

    def _choose(self, scope: str, name: Optional[str], rse: Optional[str]) -> Optional[str]:
        """Return the RSE to name to the server: None if its own rule suffices, as rucio.cfg here has no default_rse."""
        if rse or not of_server('default_rse'):
            return rse
        return self.best_place(scope, name or '')['rse']

    # Buckets

    def list_buckets(
        self, rse: Optional[str] = None, missing: Optional[list[api.MissingRSE]] = None
    ) -> list[api.Bucket]:
        """List the buckets of the scopes that the account owns, or all buckets for an admin. One request.

        Parameters
        ----------
        rse :
            Only list the buckets of this RSE.
        missing :
            A list to which the RSEs that could not be asked are added: rse and why. Without it, they are an error.

        Returns
        -------
            rse, bucket, scope and created of each bucket.

        Raises
        ------
        ServiceUnavailable
            If an RSE could not be asked, and ``missing`` was not given.
        """
        answer = self._ask(api.ListBuckets(rse=rse or None))
        failed = answer['missing']
        if failed and missing is None:
            reasons = ' '.join(f'{each["rse"]}: {each["why"]}' for each in failed)
            raise ServiceUnavailable(
                f'The list of buckets is incomplete, because some RSEs could not be asked. {printable(reasons, 1000)} '
                'Name one RSE, or pass missing=[] to get the other buckets.'
            )
        if missing is not None:
            missing += failed
        return answer['buckets']

    def make_bucket(self, scope: str, name: Optional[str] = None, rse: Optional[str] = None) -> api.MadeBucket:
        """Make the bucket of a scope, and register a dataset with a rule. It can be repeated. One request.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        name :
            The name of the dataset: objects below ``name/`` belong to it.
        rse :
            The RSE. By default, the server takes the only S3 RSE on which the account has quota.

        Returns
        -------
            rse, bucket, scope, name, url, made (whether bucket, dataset, rule, lifecycle and events are new), and
            warnings about the policy of an existing bucket that may lock out the Rucio server.

        Examples
        --------
        ??? Example

            ```python
            from rucio.client.s3client import S3Client
            S3Client().make_bucket('user.jdoe', 'thesis')
            ```
        """
        return self._ask(api.MakeBucket(scope=scope, name=name or '', rse=self._choose(scope, name, rse)))

    def remove_bucket(
        self, scope: str, name: Optional[str] = None, rse: Optional[str] = None, force: bool = False
    ) -> api.RemovedBucket:
        """Remove the bucket of a scope, or one collection in it. One request.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        name :
            The name of the dataset, to remove only that.
        rse :
            The RSE. By default, the one where the bucket is.
        force :
            Delete the content as well.

        Returns
        -------
            rse, bucket, removed (the numbers of rules, objects, replicas and datasets, and whether the bucket is gone),
            and finished: false if there is so much to delete that the call has to be repeated.

        Raises
        ------
        UnsupportedOperation
            If it is not empty, or somebody else's rule protects the content.
        """
        return self._ask(
            api.RemoveBucket(scope=scope, name=name or '', rse=self._choose(scope, name, rse), force=force)
        )

    def look_up_files(self, scope: str, names: 'Iterable[str]', rse: Optional[str] = None) -> list[api.KnownFile]:
        """Look files up in the catalogue. One request for each 1000 files, and one or two queries of the server.

        Parameters
        ----------
        scope :
            The scope of the files.
        names :
            Their names.
        rse :
            The RSE whose replicas are meant. By default, all: the answer has ``rses`` then.

        Returns
        -------
            name, did_type, lost, bytes, adler32, md5, state (of the replica, or None), and rses (from which it can be
            read) of those that are registered.

        Raises
        ------
        RSENotFound
            If there is no such RSE.
        """
        left, known = list(names), list[api.KnownFile]()
        while left:
            chunk, left = left[: api.MAX_NAMES], left[api.MAX_NAMES :]
            answer: list[api.KnownFile] = self._ask(api.LookUpFiles(scope=scope, names=chunk, rse=rse))
            known += answer
        return known

    def register_files(self, scope: str, name: str, files: 'Iterable[api.UploadedFile]', rse: str) -> list[str]:
        """Register uploaded files, and attach them to a dataset, as stock Rucio's ``add_replicas`` and ``attach_dids``.

        One request for each 1000 files, and about ten statements of the server for it.

        Parameters
        ----------
        scope :
            The scope of the dataset and the files, which the account must own.
        name :
            The name of the dataset.
        files :
            name, bytes, adler32 and md5 of the files. Their names begin with that of the dataset and a slash.
        rse :
            The RSE on which they are.

        Returns
        -------
            The names that are registered already. They are left as they are.

        Raises
        ------
        UnsupportedOperation
            If the dataset is closed, or the RSE takes no files.
        """
        left, known = list(files), list[str]()
        while left:
            chunk, left = left[: api.MAX_NAMES], left[api.MAX_NAMES :]
            known += self._ask(api.RegisterFiles(scope=scope, name=name, rse=rse, files=chunk))['known']
        return known

    def remove_files(self, scope: str, names: 'Iterable[str]', rse: Optional[str] = None) -> api.RemovedFiles:
        """Delete files: their objects on one RSE, and their replicas. With the last replica goes the file itself.

        One request for each 200 files. Files that a rule or a dataset of somebody else needs are kept. It can be
        repeated.

        Parameters
        ----------
        scope :
            The scope of the files, which the account must own.
        names :
            The names of the files.
        rse :
            The RSE. Only needed if there are several.

        Returns
        -------
            rse, bucket, removed (the number of files), and kept: name and reason (found) of each other one.

        Raises
        ------
        InputValidationError
            If there are no names.
        """
        left = list(dict.fromkeys(names))
        if not left:
            raise InputValidationError('remove_files got no names of files.')
        rse, total, kept = self._choose(scope, left[0], rse), 0, list[api.KeptFile]()
        while True:
            chunk, left = left[: api.MAX_FILES], left[api.MAX_FILES :]
            answer = self._ask(api.RemoveFiles(scope=scope, names=chunk, rse=rse))
            rse, total = answer['rse'], total + answer['removed']
            kept += answer['kept']
            if not left:
                answer['removed'], answer['kept'] = total, kept
                return answer

    def get_bucket_policy(self, scope: str, rse: Optional[str] = None) -> Optional[dict[str, Any]]:
        """Return the bucket policy of a scope's bucket, or None. One request.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        rse :
            The RSE. By default, the one where the bucket is.
        """
        return self._ask(api.GetBucketPolicy(scope=scope, rse=self._choose(scope, '', rse)))['policy'] or None

    def list_policy_warnings(self, scope: str, rse: Optional[str] = None) -> list[str]:
        """List what in the bucket policy of a scope's bucket may lock out the Rucio server. One request.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        rse :
            The RSE. By default, the one where the bucket is.
        """
        return self._ask(api.GetBucketPolicy(scope=scope, rse=self._choose(scope, '', rse)))['warnings']

    def set_bucket_policy(self, scope: str, policy: dict[str, Any], rse: Optional[str] = None) -> None:
        """Set the bucket policy of a scope's bucket. One request.

        The storage enforces it in addition to Rucio's grants. The owner of a scope may allow named users and roles to
        read; admins may set any policy.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        policy :
            An S3 bucket policy.
        rse :
            The RSE. By default, the one where the bucket is.
        """
        self._ask(api.SetBucketPolicy(scope=scope, rse=self._choose(scope, '', rse), policy=policy))

    def delete_bucket_policy(self, scope: str, rse: Optional[str] = None) -> None:
        """Remove the bucket policy of a scope's bucket, except for public access by grants. One request.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        rse :
            The RSE. By default, the one where the bucket is.
        """
        self._ask(api.DeleteBucketPolicy(scope=scope, rse=self._choose(scope, '', rse)))

    def import_bucket(  # noqa: PLR0913 - what the REST call takes
        self,
        rse: str,
        scope: str,
        name: str,
        *,
        bucket: Optional[str] = None,
        prefix: Optional[str] = None,
        dry_run: bool = False,
        on_changed: Optional[str] = None,
        on_missing: Optional[str] = None,
        progress: 'Optional[Callable[[dict[str, int]], None]]' = None,
    ) -> api.Imported:
        """Register the objects of a foreign bucket as files of a dataset; repeated calls add new objects.

        One request per 20 seconds of work.

        Parameters
        ----------
        rse :
            A non-deterministic RSE, to which nothing is written.
        scope :
            The scope of the files.
        name :
            The dataset. A file's name is this name, a slash, and its key relative to the prefix.
        bucket :
            The bucket, if the RSE does not name one.
        prefix :
            Only import objects below this prefix. By default, everything on the RSE.
        dry_run, on_changed, on_missing, progress :
            As in :meth:`reconcile`.

        Returns
        -------
            As in :meth:`reconcile`, and the prefix.

        Raises
        ------
        UnsupportedOperation
            If the RSE is deterministic.
        InvalidObject
            If files of that dataset come from elsewhere.

        Examples
        --------
        ??? Example

            ```python
            from rucio.client.s3client import S3Client
            S3Client().import_bucket('LANDSAT', 'archive', 'landsat', dry_run=True)['counts']
            ```
        """
        request = api.ImportBucket(
            rse=rse,
            scope=scope,
            name=name,
            bucket=bucket,
            prefix=prefix or '',
            dry_run=dry_run,
            on_changed=on_changed,
            on_missing=on_missing,
        )
        return self._until_done(request, progress)

    # Keeping the catalogue up to date with a bucket

    def reconcile(
        self,
        scope: str,
        name: Optional[str] = None,
        rse: Optional[str] = None,
        *,
        dry_run: bool = False,
        on_changed: Optional[str] = None,
        on_missing: Optional[str] = None,
        progress: 'Optional[Callable[[dict[str, int]], None]]' = None,
    ) -> api.Reconciled:
        """Register objects that other tools wrote to a scope's bucket, and find what they changed or removed.

        It can be repeated at any time. One request per 20 seconds of work; the server sends one request to the storage
        per 1000 objects, and reads new objects if it cannot get their checksum in another way.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        name :
            Only reconcile objects below this collection, or this one file.
        rse :
            The RSE. By default, the one where the bucket is.
        dry_run :
            Change nothing.
        on_changed :
            What to do about objects that differ from the catalogue: report, replace or bad. The default is the bucket's
            setting.
        on_missing :
            What to do about replicas whose object is missing: report, forget or lost. The default is the bucket's
            setting.
        progress :
            Called with the counts so far after each request.

        Returns
        -------
            rse, bucket, scope, name, counts (the number of objects of each kind), and problems: kind, did, key, found
            and remedy of those that need a decision. The counts are complete, but each request returns at most 100
            problems.

        Raises
        ------
        InputValidationError
            If on_changed or on_missing is invalid.

        Examples
        --------
        ??? Example

            ```python
            from rucio.client.s3client import S3Client
            S3Client().reconcile('user.jdoe', 'thesis')['counts']
            ```
        """
        wish: dict[str, Any] = {'dry_run': dry_run, 'on_changed': on_changed, 'on_missing': on_missing}
        return self._until_done(
            api.Reconcile(scope=scope, name=name or '', rse=self._choose(scope, name, rse), **wish), progress
        )

    def reconcile_files(
        self,
        scope: str,
        rse: str,
        files: list[api.WrittenFile],
        *,
        on_changed: Optional[str] = None,
        on_missing: Optional[str] = None,
    ) -> api.Reconciled:
        """Reconcile files whose objects were just written or deleted by another tool. One request.

        The server sends two or three requests to the storage for each file, and reads new objects if neither ``files``
        nor the storage has their checksum.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        rse :
            The RSE.
        files :
            At most 200: the name of each, and if they are known, bytes, etag and adler32 of its object.
        on_changed, on_missing :
            As in :meth:`reconcile`.

        Returns
        -------
            As in :meth:`reconcile`.
        """
        return self._ask(
            api.ReconcileFiles(scope=scope, rse=rse, files=files, on_changed=on_changed, on_missing=on_missing)
        )

    def get_bucket_settings(self, scope: str, rse: Optional[str] = None) -> api.BucketSettings:
        """Return what is done about objects in a scope's bucket that others changed or removed. One request.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        rse :
            The RSE. By default, the one where the bucket is.

        Returns
        -------
            rse, bucket, scope, on_changed, on_missing, and own: which of these were set for this bucket, not for the
            whole RSE.
        """
        return self._ask(api.GetBucketSettings(scope=scope, rse=self._choose(scope, '', rse)))

    def set_bucket_settings(
        self,
        scope: str,
        rse: Optional[str] = None,
        *,
        on_changed: Optional[str] = None,
        on_missing: Optional[str] = None,
    ) -> api.BucketSettings:
        """Set what is done about objects in a scope's bucket that others changed or removed. One request.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        rse :
            The RSE. By default, the one where the bucket is.
        on_changed :
            report, replace, bad, or default for the setting of the RSE. By default it is not changed.
        on_missing :
            report, forget, lost, or default for the setting of the RSE. By default it is not changed.

        Returns
        -------
            As in :meth:`get_bucket_settings`.

        Raises
        ------
        InputValidationError
            If on_changed or on_missing is invalid.
        """
        return self._ask(
            api.SetBucketSettings(
                scope=scope, rse=self._choose(scope, '', rse), on_changed=on_changed, on_missing=on_missing
            )
        )

    def list_changes(
        self, scope: str, name: Optional[str] = None, rse: Optional[str] = None, since: Optional[str] = None
    ) -> api.Changes:
        """List recent changes in the catalogue below a collection. One request.

        The server reads all replicas below the name for it.

        Parameters
        ----------
        scope :
            The scope.
        name :
            The name of a collection. By default, the whole scope.
        rse :
            The RSE. By default, the one where the bucket is.
        since :
            ``now`` of an earlier answer. Without it, only the time is returned.

        Returns
        -------
            rse, now, and changes: time, change (registered, updated, bad, removed), scope, name and bytes of each. more
            is true if there were too many for one answer; now is then the time of the last change in it. A change may
            become visible seconds after its time: to follow changes, ask from slightly before ``now``, and skip those
            that are known.
        """
        return self._ask(api.ListChanges(scope=scope, name=name or '', rse=self._choose(scope, name, rse), since=since))

    # Sharing

    def list_grants(self, scope: str, name: str) -> list[api.Grant]:
        """List the grants of a collection. One request.

        Parameters
        ----------
        scope :
            The scope of the collection.
        name :
            The name of the collection.

        Returns
        -------
            kind, account (``*`` for everybody), write, by, at, until (None: no end) and ended of each grant.
        """
        return self._ask(api.ListGrants(scope=scope, name=name))

    def add_grant(
        self,
        scope: str,
        name: str,
        account: str,
        write: bool = False,
        *,
        kind: Optional[str] = None,
        until: Optional[datetime] = None,
    ) -> api.AddedGrant:
        """Share a collection: let somebody read everything below ``name/``. One request.

        Parameters
        ----------
        scope :
            The scope of the collection.
        name :
            The name of the collection.
        account :
            The account; for the kind attribute ``KEY=VALUE``; for everybody and world ``*``.
        write :
            Also allow writing and deleting. Not for everybody and world.
        kind :
            account, attribute (all accounts that have it at the time of access), everybody (all accounts) or world
            (also people without an account). By default, ``*`` is the world, and anything else an account.
        until :
            When the access ends, with a time zone. By default never. From then on the server signs nothing, and no
            keys that it issued are valid; the storage may let the world read until the server's daemon has updated it.

        Returns
        -------
            account, write, until, changed (False if it had been granted before), and own_keys: for each storage at
            which accounts have users of their own, rse, user (the ARN of the one who can read it with keys of its own;
            None: nobody) and why not. Older servers do not return own_keys.

        Raises
        ------
        InvalidObject
            If no account has the attribute, the end is past, or the policy of the bucket would be too large.
        """
        end = to_text(until.astimezone(timezone.utc)) if until else None
        return self._ask(api.AddGrant(scope=scope, name=name, account=account, write=write, kind=kind, until=end))

    def delete_grant(self, scope: str, name: str, account: str, *, kind: Optional[str] = None) -> None:
        """Stop sharing a collection with somebody. One request.

        Keys that were issued before remain valid until they expire.

        Parameters
        ----------
        scope :
            The scope of the collection.
        name :
            The name of the collection.
        account :
            As for :meth:`add_grant`.
        kind :
            As for :meth:`add_grant`.
        """
        self._ask(api.DeleteGrant(scope=scope, name=name, account=account, kind=kind))

    def list_usable(self, places: bool = False) -> api.Shares:
        """List what the account may use: its own scopes, and the collections that others share with it. One request.

        Parameters
        ----------
        places :
            Return also where each of them is, which costs the server some queries for each.

        Returns
        -------
            shares, and more: whether there are more than 1000. Each share has scope, name (empty: the whole scope),
            kind (own, account, attribute, everybody or world), account, write, by, at, until (None: no end), ended,
            and places: rse, bucket, key and url of each, the best place first. A collection that is shared in several
            ways is in the list several times. What only admins may use is not in it.

        Examples
        --------
        ??? Example

            ```python
            from rucio.client.s3client import S3Client
            usable = S3Client().list_usable()['shares']
            scopes = {each['scope'] for each in usable}
            writable = {(each['scope'], each['name']) for each in usable if each['write']}
            ```
        """
        return self._ask(api.ListUsable(places=places))

    def list_shared(self, places: bool = False) -> api.Shares:
        """List what the account shares with others: all grants in the scopes that it owns. One request.

        Parameters
        ----------
        places :
            Return also where each collection is.

        Returns
        -------
            As for :meth:`list_usable`. Grants that ended are listed until the server's daemon has removed them.
        """
        return self._ask(api.ListShared(places=places))

    # Authorisation

    def get_s3_credentials(
        self, rse: str, bucket: str, prefix: str = '', write: bool = False, lifetime: Optional[int] = None
    ) -> api.Credentials:
        """Get short-lived keys for a part of a bucket. One request.

        Parameters
        ----------
        rse :
            The name of the RSE.
        bucket :
            The bucket.
        prefix :
            A key or a prefix of keys; empty for the whole bucket. The server extends it to everything that the account
            may access.
        write :
            Whether the keys allow writing and deleting.
        lifetime :
            The lifetime in seconds; the server sets the upper limit.

        Returns
        -------
            rse, url, region, addressing, bucket, prefix, write, access_key, secret_key, session_token, and expiration
            (``YYYY-MM-DDTHH:MM:SSZ``).

        Raises
        ------
        RSEOperationNotSupported
            If the server issues no keys for this storage.
        ConfigurationError
            If the Rucio server is not reached by https, as anybody on the network could read the keys.
        """
        return self._keys_of(api.GetCredentials(rse=rse, bucket=bucket, prefix=prefix, write=write, lifetime=lifetime))

    def get_did_credentials(
        self,
        scope: str,
        name: Optional[str] = None,
        rse: Optional[str] = None,
        write: bool = False,
        lifetime: Optional[int] = None,
    ) -> api.Credentials:
        """Get short-lived keys for a DID, wherever it is. One request.

        Parameters
        ----------
        scope :
            The scope of the DID.
        name :
            The name of a file or collection. By default, the scope's whole bucket.
        rse :
            The RSE. By default, the server chooses one.
        write :
            Whether the keys allow writing and deleting.
        lifetime :
            The lifetime in seconds; the server sets the upper limit.

        Returns
        -------
            As in :meth:`get_s3_credentials`.

        Raises
        ------
        RSEOperationNotSupported
            If the server issues no keys for this storage.
        ConfigurationError
            If the Rucio server is not reached by https, as anybody on the network could read the keys.
        """
        return self._keys_of(
            api.GetCredentials(
                scope=scope, name=name or '', rse=self._choose(scope, name, rse), write=write, lifetime=lifetime
            )
        )

    def sign_s3_requests(self, rse: str, requests: list[api.Unsigned]) -> list[api.Signed]:
        """Have the server sign S3 requests, which the caller then sends to the storage. One request.

        Parameters
        ----------
        rse :
            The name of the RSE.
        requests :
            At most 1000: method, uri, region, headers (name -> list of values), and body (base64) of a DeleteObjects.

        Returns
        -------
            uri and headers of each request.
        """
        return checked_signatures(self._who, self._ask(api.Sign(rse=rse, requests=requests)))

    def get_signed_url(self, rse: str, service: str, operation: str, url: str, lifetime: int = 3600) -> str:
        """Return a URL with which anybody can do one operation on one object. At most two requests.

        The parameters are those of ``CredentialClient.get_signed_url``. With the server's plugin, or with keys given to
        this client, the account does not need the attribute ``sign-url``, and plain-http storages and names that are
        encoded in URLs work. Otherwise the stock server signs.

        Parameters
        ----------
        rse :
            The name of the RSE.
        service :
            ``s3``; for others (gcs, swift) the stock server signs.
        operation :
            ``read``, ``write`` or ``delete``.
        url :
            The object's URL: ``https://host:port/bucket/key``, percent-encoded.
        lifetime :
            The lifetime in seconds. A URL that was signed with short-lived keys expires with them, if that is earlier.

        Raises
        ------
        InputValidationError
            If the operation is invalid.
        """
        operations = {'read': 'get_object', 'write': 'put_object', 'delete': 'delete_object'}
        if service != 's3':
            return str(super().get_signed_url(rse, service, operation, url, lifetime))
        if operation not in operations:
            raise InputValidationError(f"A URL cannot be signed for '{operation}': use read, write or delete.")
        place = address.parse_url(url)
        try:
            client = (
                self._explicit()
                if self._is_explicit
                else self._presigner(rse, place.bucket, place.key, operation != 'read')
            )
        except RSEOperationNotSupported:
            return checked(self._who, 'signed_url', super().get_signed_url(rse, service, operation, url, lifetime))
        return client.generate_presigned_url(
            operations[operation], Params={'Bucket': place.bucket, 'Key': place.key}, ExpiresIn=lifetime
        )

    # Clients and options for analysis tools

    def boto3_client(
        self,
        did: Optional[str] = None,
        *,
        scope: Optional[str] = None,
        name: Optional[str] = None,
        rse: Optional[str] = None,
        write: bool = False,
    ) -> 'Boto3S3':
        """Make a boto3 client for the bucket of a DID. Two or three requests.

        The client stays authorised as long as it is used. If the server issues short-lived keys, they only give access
        to the DID (for a file, to what was shared or to the bucket), and allow writing only with ``write``. Otherwise
        the server signs each request, if the account is allowed to do it. Objects written with the client are not
        registered in Rucio: use ``rucio upload`` or ``rucio s3 upload`` for that.

        Parameters
        ----------
        did :
            ``scope:name``, or ``scope`` for its bucket. Not needed if this client was made with an endpoint or keys.
        scope, name :
            The same as two parameters.
        rse :
            The RSE. By default, that of :meth:`best_place`.
        write :
            Whether the client can write and delete.

        Returns
        -------
            A client like those of ``boto3.client('s3')``.

        Examples
        --------
        ??? Example

            ```python
            from rucio.client.s3client import S3Client
            s3 = S3Client().boto3_client('user.jdoe:thesis')
            s3.list_objects_v2(Bucket='user.jdoe', Prefix='thesis/')
            ```
        """
        if self._is_explicit:
            return self._explicit()
        scope, name = _did(did, scope, name)
        place = self._place(scope, name, rse, read=not write)
        return self._client(
            place.endpoint, place.ways, lambda: self.get_did_credentials(scope, name, place.endpoint.rse, write)
        )

    def bucket_client(
        self, rse: str, bucket: str, prefix: str = '', write: bool = False, patience: Patience = PERSON
    ) -> 'Boto3S3':
        """Make a boto3 client for a part of a bucket, whether or not the catalogue knows it. One or two requests.

        Short-lived keys are valid for everything around the prefix that the account may access: for the owner, the
        whole bucket.

        Parameters
        ----------
        rse :
            The name of the RSE.
        bucket :
            The bucket.
        prefix :
            A key, or a prefix of keys.
        write :
            Whether the client can write and delete.
        patience :
            Time-outs and attempts, where the settings of the storage do not say.
        """
        endpoint, ways = self._storage(rse)
        return self._client(endpoint, ways, lambda: self.get_s3_credentials(rse, bucket, prefix, write), patience)

    def storage_options(
        self,
        did: Optional[str] = None,
        *,
        scope: Optional[str] = None,
        name: Optional[str] = None,
        rse: Optional[str] = None,
        write: bool = False,
    ) -> dict[str, Any]:
        """Return the options for fsspec and s3fs, and so for uproot, pandas, dask and xarray. Two or three requests.

        If aiobotocore is installed here, as it is with s3fs, they have a session that renews its keys. Otherwise they
        have the keys themselves, which expire after the lifetime that the server sets, usually an hour; so do
        copies of the session in other processes.

        Parameters
        ----------
        did, scope, name, rse, write :
            As in :meth:`boto3_client`.

        Raises
        ------
        RSEOperationNotSupported
            If the server issues no keys for the storage, and rucio.cfg has none: see :meth:`boto3_client`.

        Examples
        --------
        ??? Example

            ```python
            import uproot
            from rucio.client.s3client import S3Client
            options = S3Client().storage_options('user.jdoe:thesis')
            uproot.open('s3://user.jdoe/thesis/file.root', **options)
            ```
        """
        if self._is_explicit:
            return _fsspec(self._endpoint_url, self._region, (*self._keys, None), self._config)
        scope, name = _did(did, scope, name)
        place = self._place(scope, name, rse, read=not write)
        endpoint = place.endpoint
        style: Any = {'addressing_style': endpoint.addressing}
        config = Config(s3=style).merge(self._config)
        region = self._region or endpoint.signing_region()
        keys: tuple[Optional[str], ...]
        if not _vends(endpoint, place.ways):
            session, keys = None, self._keys_for(place, scope, name, write)
        else:
            vended = _Keys(lambda: self.get_did_credentials(scope, name, endpoint.rse, write)).credentials()
            session = aiosession.renewing(vended)
            keys = () if session else tuple(vended.get_frozen_credentials())
        return _fsspec(endpoint.url, region, keys, config, endpoint.ca_bundle) | _given(session=session)

    def obstore_store(
        self,
        did: Optional[str] = None,
        *,
        scope: Optional[str] = None,
        name: Optional[str] = None,
        rse: Optional[str] = None,
        write: bool = False,
    ) -> Any:
        """Make an obstore ``S3Store`` for a DID, which renews its keys. Two or three requests.

        Its paths begin below the DID: ``file.root`` in the store of ``user.jdoe:thesis`` is the object
        ``thesis/file.root``. The store of a file is that of its folder.

        Parameters
        ----------
        did, scope, name, rse, write :
            As in :meth:`boto3_client`.

        Raises
        ------
        MissingDependency
            If obstore is not installed.
        RSEOperationNotSupported
            If the server issues no keys for the storage: see :meth:`boto3_client`.

        Examples
        --------
        ??? Example

            ```python
            import obstore
            from rucio.client.s3client import S3Client
            store = S3Client().obstore_store('user.jdoe:thesis', write=True)
            obstore.put(store, 'notes.txt', b'Hello')
            print(obstore.list(store).collect())
            ```
        """
        try:
            from obstore.store import S3Store  # type: ignore[import-not-found] # noqa: PLC0415 - optional
        except ImportError:
            raise MissingDependency('obstore is not installed. Install it with: pip install obstore') from None
        scope, name = _did(did, scope, name)
        place = self._place(scope, name, rse, read=not write)
        endpoint = place.endpoint
        self._keys_for(place, scope, name, write)  # fail here, not at the first object
        trusted = factory.trusted(endpoint.ca_bundle)

        def provide() -> dict[str, Any]:
            if not _vends(place.endpoint, place.ways):
                access_key, secret_key, token = self._keys_for(place, scope, name, write)
                return _given(access_key_id=access_key, secret_access_key=secret_key, token=token) | {
                    'expires_at': None
                }
            keys = self.get_did_credentials(scope, name, endpoint.rse, write)
            return {
                'access_key_id': keys['access_key'],
                'secret_access_key': keys['secret_key'],
                'token': keys['session_token'],
                'expires_at': from_text(keys['expiration']),
            }

        return S3Store(
            place.bucket,
            endpoint=endpoint.url,
            region=endpoint.signing_region(),
            virtual_hosted_style_request=endpoint.addressing == 'virtual',
            prefix=place.folder or None,
            client_options=_given(
                allow_http=endpoint.url.startswith('http:'),
                root_certificate=Path(trusted).read_bytes() if isinstance(trusted, str) else None,
            ),
            credential_provider=provide,
        )

    # Internals

    def _open(self, told: 'RSEAnswer') -> 'RSEAnswer':
        """Remove the ways of an RSE that are not open to this client."""
        if not is_private(self.host):
            told['auth'] = [way for way in told['auth'] or [] if way != 'vended']
        return told

    def _keys_of(self, request: api.GetCredentials) -> api.Credentials:
        need_private(
            self.host, 'The keys that the Rucio server issues', 'Set rucio_host in rucio.cfg to its https URL.'
        )
        return checked_keys(self._who, self._ask(request))

    def _until_done(
        self, request: 'Request[ReconcileAnswer]', progress: 'Optional[Callable[[dict[str, int]], None]]' = None
    ) -> 'ReconcileAnswer':
        """Repeat a request with the ``after`` of the answer until that is None, and add up the counts."""
        counts: Counter[str] = Counter()
        problems: list[api.Problem] = []
        while True:
            answer = self._ask(request)
            counts.update(answer['counts'])
            problems += answer['problems']
            if progress is not None:
                progress(dict(counts))
            if answer['after'] is None:
                answer['counts'], answer['problems'] = dict(counts), problems
                return answer
            request = replace(request, after=answer['after'])  # type: ignore[type-var] # both are a Wish

    def _ask(self, request: 'Request[Answer]') -> 'Answer':
        """Send one request to the plugin, and return the answer.

        :raises RSEOperationNotSupported: if the server has no plugin, or one that does not know this request.
        """
        path, query, body = request.parts()
        response = self._send(request.method, path, query, body)
        if response.status_code in (codes.ok, codes.created):
            found = self._json(response) if response.content else {}
            if isinstance(found, list):
                found = [_Told(self._who, each) if isinstance(each, dict) else each for each in found]
            answer: Any = _Told(self._who, found) if isinstance(found, dict) else found
            return cast('Answer', answer)
        if response.status_code in _NO_ROUTE and 'ExceptionClass' not in response.headers:
            raise RSEOperationNotSupported(self._why_not(request))
        kind, message = rucio_internals.exception_of(self, response)
        raise kind(printable(message, _LONGEST_REFUSAL))

    def _why_not(self, request: 'Request[Any]') -> str:
        """Explain why the server does not know a request. One more request."""
        response = self._send('GET', *api.GetVersion().parts())
        if response.status_code != codes.ok:
            return f'{NO_PLUGIN} ({self.host}).'
        told = str(self._json(response).get('version'))
        return (
            f'{self._who} has version {printable(told, 64)} of the S3 plugin, which does not know {request.method} '
            f'/s3{request.path}; this client has version {api.version()}. Ask for the older of the two to be updated.'
        )

    def _json(self, response: 'Response') -> Any:
        try:
            return response.json()
        except ValueError:
            raise ServerConnectionException(
                f'{self.host} did not answer in JSON: check rucio_host in rucio.cfg, and any proxy before the server.'
            ) from None

    def _send(self, method: str, path: str, query: dict[str, Any], body: Optional[dict[str, Any]]) -> 'Response':
        """Send a request; repeat it when the server asks to (429), for :attr:`PATIENCE` seconds at most."""
        url = build_url(choice(self.list_hosts), path=f'{self.S3_BASEURL}{path}', params=query or None)
        data, patience = None if body is None else dumps(body), self.PATIENCE
        while True:
            try:
                response = rucio_internals.send(self, url, method, data)
                response.content  # noqa: B018 - read it here, where a failure is caught
            except (RequestException, ServerConnectionException) as error:
                raise ServerConnectionException(
                    f'{self.host} did not answer. Try again later, or check rucio_host in rucio.cfg.'
                ) from error
            busy = response.status_code == codes.too_many_requests
            pause = _retry_after(response.headers.get('Retry-After')) if busy else 0
            if not 0 < pause <= patience:
                return response
            patience -= pause
            time.sleep(pause)

    @property
    def _is_explicit(self) -> bool:
        return bool(self._endpoint_url or self._keys[0])

    def _explicit(self) -> 'Boto3S3':
        session = factory.with_boto3(factory.user_session())
        if all(self._keys):
            session.set_credentials(str(self._keys[0]), str(self._keys[1]))
        client: Boto3S3 = factory.client(
            self._resource, session, self._endpoint_url, region=self._region, config=self._config
        )
        return client

    def _place(self, scope: str, name: str, rse: Optional[str], read: bool) -> _DIDLocation:
        place = self.best_place(scope, name, rse, read)
        endpoint, ways = self._storage(place['rse'])
        key = place['key']
        folder = key.rpartition('/')[0] if place['did_type'] == 'FILE' else key
        return _DIDLocation(endpoint, ways, place['bucket'], key, folder)

    def _storage(self, rse: str) -> tuple[Endpoint, tuple[str, ...]]:
        """Return the storage as the server describes it, with the settings of rucio.cfg on this machine."""
        told: Mapping[str, Any] = self.get_s3_rse(rse)
        scheme, _, host = checked(self._who, 'url', told.get('url')).partition('://')
        host, _, port = host.rpartition(':') if re.search(':[0-9]{1,5}$', host) else (host, '', '')
        names = ('provider', 'region', 'addressing', 'bucket_prefix', 'verifies_body', 'web_identity_role_arn')
        settings = {name: told[name] for name in names if told.get(name) not in (None, '')}
        if 'anonymous' in (told.get('auth') or ()):
            settings['auth'] = 'anonymous'
        protocol = {'scheme': scheme, 'hostname': host, 'port': int(port or 0), 'extended_attributes': {'s3': settings}}
        own_config.warn(rse, self.logger.log)
        return Endpoint.load({'rse': rse, 'id': ''}, protocol), tuple(told.get('auth') or ())

    def _keys_for(
        self, place: _DIDLocation, scope: str, name: str, write: bool
    ) -> tuple[Optional[str], Optional[str], Optional[str]]:
        secrets = place.endpoint.secrets
        if not _vends(place.endpoint, place.ways) and secrets.access_key:
            return secrets.access_key, secrets.secret_key, secrets.session_token
        if 'vended' not in place.ways:
            raise RSEOperationNotSupported(_no_way(place.endpoint.rse))
        keys = self.get_did_credentials(scope, name, place.endpoint.rse, write)
        return keys['access_key'], keys['secret_key'], keys['session_token']

    def _client(
        self,
        endpoint: Endpoint,
        ways: tuple[str, ...],
        fetch: 'Callable[[], api.Credentials]',
        patience: Patience = PERSON,
    ) -> 'Boto3S3':
        if _vends(endpoint, ways):
            return self._make(endpoint, _Keys(fetch), patience)
        authorizer = credentials.choose(endpoint, self, self.auth_token if self.auth_type == 'oidc' else None)
        if authorizer is None:
            raise RSEOperationNotSupported(_no_way(endpoint.rse))
        return self._make(endpoint, authorizer, patience)

    def _presigner(self, rse: str, bucket: str, key: str, write: bool) -> 'Boto3S3':
        """Return a client with keys: no other can sign URLs."""
        endpoint, ways = self._storage(rse)
        if not _vends(endpoint, ways) and not endpoint.secrets.access_key:
            raise RSEOperationNotSupported(_no_way(rse))
        return self._client(endpoint, ways, lambda: self.get_s3_credentials(rse, bucket, key, write))

    def _make(self, endpoint: Endpoint, authorizer: authorizer.Authorizer, patience: Patience) -> 'Boto3S3':
        """Make a new client.

        The shared clients of :mod:`rucio.common.s3.clients` never overwrite objects, unlike those of boto3.
        """
        integrity: Any = 'when_supported' if endpoint.checksum == 'crc32' else 'when_required'
        style: Any = {'addressing_style': endpoint.addressing}
        config = Config(s3=style, request_checksum_calculation=integrity).merge(self._config)
        if not authorizer.signed:
            config = config.merge(Config(signature_version=UNSIGNED))
        session = factory.with_boto3(authorizer.session())
        region = self._region or endpoint.signing_region(authorizer.region)
        client: Boto3S3 = factory.client(
            's3',
            session,
            endpoint.url,
            region=region,
            ca_bundle=endpoint.ca_bundle,
            patience=endpoint.patience(patience),
            config=config,
        )
        authorizer.attach(client)
        return client


class _Keys(authorizer.WithKeys):
    """Keys of one grant, renewed before they expire."""

    name = 'vended'
    identity = 'vended'

    def __init__(self, fetch: 'Callable[[], api.Credentials]') -> None:
        self._fetch = fetch

    def credentials(self) -> 'Credentials':
        return self._renewed

    @cached_property
    def _renewed(self) -> 'Credentials':
        first = [self._metadata()]
        lasts = (from_text(first[0]['expiry_time']) - datetime.now(timezone.utc)).total_seconds()
        # botocore's own 15 minutes may be all of their life.
        early, late = int(min(900, lasts / 3)), int(min(600, lasts / 6))
        return botocore_internals.renewed_keys(lambda: first.pop() if first else self._metadata(), early, late)

    def _metadata(self) -> dict[str, str]:
        keys = self._fetch()
        return {
            'access_key': keys['access_key'],
            'secret_key': keys['secret_key'],
            'token': keys['session_token'],
            'expiry_time': keys['expiration'],
        }


def _retry_after(value: Optional[str]) -> int:
    """Return the seconds of a Retry-After header, which may be missing, or a date."""
    return max(1, int(value)) if value and value.isascii() and value.isdigit() else 5


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _fsspec(
    url: Optional[str],
    region: Optional[str],
    keys: tuple[Optional[str], ...],
    config: Any,
    ca_bundle: Optional[str] = None,
) -> dict[str, Any]:
    hide_in_logs()
    named = _given(
        **dict(zip(('key', 'secret', 'token'), keys, strict=False)),
        endpoint_url=url,
        client_kwargs=_given(region_name=region, verify=factory.trusted(ca_bundle)),
    )
    return named | {'config_kwargs': _given(signature_version=config.signature_version, s3=config.s3)}


def _did(did: Optional[str], scope: Optional[str], name: Optional[str]) -> tuple[str, str]:
    if did:
        return address.parse_did(did)
    if not scope:
        raise InputValidationError("No DID was given. Expected 'scope:name', or 'scope' for its bucket.")
    return scope, (name or '').strip('/')


def _vends(endpoint: Endpoint, ways: tuple[str, ...]) -> bool:
    """Return whether to use keys of the server: rucio.cfg may have keys, or require another way."""
    own = endpoint.secrets.access_key or endpoint.secrets.profile
    return 'vended' in ways and (endpoint.auth == 'vended' or (endpoint.auth == 'auto' and not own))


def _no_way(rse: str) -> str:
    return (
        f'RSE {rse}: this needs keys, and the Rucio server issues none for this storage (no role_arn, '
        f'or no safe role: see rucio s3 check {rse}). Put keys into '
        f'rucio.cfg [s3:{rse}], or ask the operator for vended keys. `rucio upload` and `rucio download` work without.'
    )
