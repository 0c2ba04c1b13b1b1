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

"""The transfertool ``s3``: transfers between S3 RSEs that the daemon ``rucio-s3-copier`` carries out, without FTS.

Rucio's submitter hands requests over by a note in the database, and that is all that this class does. The daemon finds
them (:mod:`rucio.core.s3.transfers.copies`), moves the bytes, and writes the outcome where Rucio's finisher looks for it.
"""

import logging
from functools import wraps
from typing import TYPE_CHECKING, Any, Optional

from rucio.common.utils import generate_uuid
from rucio.db.sqla.constants import RequestType
from rucio.transfertool.transfertool import Transfertool, TransferToolBuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rucio.common.types import LoggerFunction
    from rucio.core.request import DirectTransfer
    from rucio.core.rse import RseData
    from rucio.rse.protocols.protocol import RSEProtocol
    from rucio.transfertool.transfertool import TransferStatusReport

__all__ = ['EXTERNAL_HOST', 'S3Transfertool', 'install']

# stands in the requests where that of FTS has its URL; followed by a claim once an instance has it
EXTERNAL_HOST = 'rucio-s3-copier'
_IMPL = (
    'rucio.rse.protocols.s3.'  # not the class: whatever keeps that from being imported shall not keep FTS from its work
)
# Private names of Rucio's class, as Python mangles them.
_REWRITES = ('_DirectTransferImplementation__rewrite_source_url', '_DirectTransferImplementation__rewrite_dest_url')


class S3Transfertool(Transfertool):
    """Copies between two S3 RSEs. No method makes a request or a query."""

    external_name = 's3'
    required_rse_attrs = ()
    supported_schemes = {'https', 'http', 'davs', 's3', 's3s'}  # noqa: RUF012 - as in Rucio

    def __init__(self, external_host: str = EXTERNAL_HOST, logger: 'LoggerFunction' = logging.log) -> None:
        super().__init__(external_host=external_host, logger=logger)

    @classmethod
    def can_perform_transfer(cls, source_rse: 'RseData', dest_rse: 'RseData') -> bool:
        """Whether both are S3 RSEs: Rucio's preparer asks. No query where their protocols were read before."""
        return all(
            any(_is_ours(each) for each in rse.ensure_loaded(load_info=True).info['protocols'])
            for rse in (source_rse, dest_rse)
        )

    @classmethod
    def submission_builder_for_path(
        cls, transfer_path: 'list[DirectTransfer]', logger: 'LoggerFunction' = logging.log
    ) -> 'tuple[list[DirectTransfer], Optional[TransferToolBuilder]]':
        """Take the first hop of a path, if both of its ends are S3 RSEs."""
        hop = transfer_path[0]
        if hop.rws.request_type != RequestType.TRANSFER:
            return [], None
        if not _is_s3(hop.source_protocol(hop.src)) or not _is_s3(hop.dest_protocol()):
            logger(
                logging.INFO,
                '%s: the transfertool s3 needs the protocol class %sDefault at both ends. Skipping %s',
                hop.rws.request_id,
                _IMPL,
                hop,
            )
            return [], None
        return [hop], TransferToolBuilder(cls, external_host=EXTERNAL_HOST)

    def group_into_submit_jobs(self, transfer_paths: 'Iterable[list[DirectTransfer]]') -> list[dict[str, Any]]:
        """One job for each file: each has an outcome of its own."""
        return [{'transfers': [hop], 'job_params': {}} for path in transfer_paths for hop in path]

    def submit(
        self, transfers: 'Iterable[DirectTransfer]', job_params: dict[str, str], timeout: Optional[int] = None
    ) -> str:
        """:returns: A new id. Nothing moves yet: the daemon finds the request when its state is SUBMITTED."""
        return str(generate_uuid())

    def bulk_query(
        self, requests_by_eid: 'Mapping[str, Mapping[str, Any]]', timeout: Optional[int] = None
    ) -> 'dict[str, dict[str, TransferStatusReport]]':
        """Nothing new, of any: the daemon writes what becomes of a request by itself."""
        return {external_id: {} for external_id in requests_by_eid}

    def query(self, transfer_ids: 'Sequence[str]', details: bool = False, timeout: Optional[int] = None) -> None:
        """Nothing, as with :meth:`bulk_query`."""

    def cancel(self, transfer_ids: 'Sequence[str]', timeout: Optional[int] = None) -> None:
        """Nothing: the daemon sees that the request is gone."""

    def update_priority(self, transfer_id: str, priority: int, timeout: Optional[int] = None) -> None:
        """Nothing: the daemon goes by the priority in the request."""


def _is_s3(protocol: 'RSEProtocol') -> bool:
    return _is_ours(protocol.attributes)


def _is_ours(entry: 'Mapping[str, Any]') -> bool:
    return str(entry['impl']).startswith(_IMPL)


def install(module: Any) -> None:
    """Make the transfertool known to Rucio, and FTS's transfers right. `rucio_s3_plugin` calls it when Python has
    executed ``rucio.core.transfer``.

    Rucio hands each change of priority and each cancellation of what is SUBMITTED to FTS, whoever it was submitted to;
    a change of priority would fail there. Ours do not come so far.

    Where an RSE has the attribute `sign_url`, Rucio rewrites what stands in the URLs for FTS, also in the names of
    files. URLs of S3 are as FTS takes them already, and stay so. Without `sign_url` it does not ask WebDAV storages to
    send their files to an S3 storage: they are asked here. And before a transfer is submitted to FTS, the bucket that
    it goes into is made.

    :param module: ``rucio.core.transfer``.
    :raises AttributeError, KeyError: if this is a Rucio that has these things elsewhere; then nothing was changed.
    """
    known = module.TRANSFERTOOL_CLASSES_BY_NAME
    cancel, update, mark = module.cancel_transfers, module.update_transfer_priority, module.mark_submitting
    direct = module.DirectTransferImplementation
    rewrites = {name: staticmethod(_but_s3(getattr(direct, name))) for name in _REWRITES}
    generate = classmethod(_with_push(vars(direct)['_generate_source_url'].__func__))
    module.cancel_transfers, module.update_transfer_priority = _without_ours(cancel), _without_ours(update)
    module.mark_submitting = _with_bucket(mark)
    for name, method in {**rewrites, '_generate_source_url': generate}.items():
        setattr(direct, name, method)
    known[S3Transfertool.external_name] = S3Transfertool


def _without_ours(to_fts: 'Callable[..., None]') -> 'Callable[..., None]':
    @wraps(to_fts)
    def only_fts(by_host: 'Mapping[str, Any]', *arguments: Any, **keywords: Any) -> None:
        to_fts(
            {host: transfers for host, transfers in by_host.items() if str(host).partition('/')[0] != EXTERNAL_HOST},
            *arguments,
            **keywords,
        )

    return only_fts


def _but_s3(rewrite: 'Callable[..., str]') -> 'Callable[..., str]':
    @wraps(rewrite)
    def rewrite_others(url: str, *arguments: Any, **keywords: Any) -> str:
        return url if url.startswith(('s3s://', 's3://')) else rewrite(url, *arguments, **keywords)

    return rewrite_others


def _with_push(generate: 'Callable[..., str]') -> 'Callable[..., str]':
    @wraps(generate)
    def generate_with_push(cls: type, src: Any, dst: Any, rws: Any, protocol_factory: Any, operation: str) -> str:
        url = generate(cls, src, dst, rws, protocol_factory, operation)
        plain, _, query = url.partition('?')
        # That may be what the site has set for WebDAV storages among themselves (webdav_transfer_mode).
        if (
            rws.request_type != RequestType.TRANSFER
            or not url.startswith(('davs://', 'https://'))
            or (query and not query.startswith('copy_mode='))
        ):
            return url
        destination = protocol_factory.protocol(dst.rse, dst.scheme, 'third_party_copy_write')
        return f'{plain}?copy_mode=push' if getattr(destination, 'wants_push', False) else url

    return generate_with_push


def _with_bucket(mark: 'Callable[..., None]') -> 'Callable[..., None]':
    @wraps(mark)
    def make_bucket_and_mark(
        transfer: 'DirectTransfer',
        external_host: str,
        *arguments: Any,
        logger: 'LoggerFunction' = logging.log,
        **keywords: Any,
    ) -> None:
        # The copier makes its buckets by itself.
        if external_host != EXTERNAL_HOST and _is_s3(transfer.dest_protocol()):
            from rucio.core.s3.transfers.destinations import prepare  # noqa: PLC0415 - it would import what is being executed

            prepare(transfer.dst.rse.id, transfer.rws.scope, logger=logger)
        mark(transfer, external_host, *arguments, logger=logger, **keywords)

    return make_bucket_and_mark
