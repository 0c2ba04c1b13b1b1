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

"""The test of a module is found by its name.

`lib/rucio/core/s3/auth/access.py` is tested by tests/unit/test_access.py or, with more of its path where that is the name of another,
test_auth_access.py; all of a package may have one file of the package's name. ELSEWHERE says where the others are.
"""

import re
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]
LIB = TESTS.parent / 'lib'
ELSEWHERE = {
    'rucio/cli/s3/buckets.py': 'unit/test_cli_listing.py',
    'rucio/cli/s3/cat.py': 'integration/test_bulk_download.py',
    'rucio/cli/s3/download.py': 'integration/test_bulk_download.py',
    'rucio/cli/s3/dumps.py': 'unit/test_s3dump.py',
    'rucio/cli/s3/exec.py': 'interop/test_exec.py',
    'rucio/cli/s3/imports.py': 'integration/test_imports.py',
    'rucio/cli/s3/installed.py': 'interop/test_serve.py',
    'rucio/cli/s3/local_endpoint.py': 'interop/test_exec.py',
    'rucio/cli/s3/missing.py': 'integration/test_several_rses.py',
    'rucio/cli/s3/presign.py': 'unit/test_cli_access.py',
    'rucio/cli/s3/private.py': 'attacks/test_credential_files.py',
    'rucio/cli/s3/rm.py': 'integration/test_rm.py',
    'rucio/cli/s3/serve.py': 'interop/test_serve.py',
    'rucio/cli/s3/sharing.py': 'unit/test_cli_tables.py',
    'rucio/cli/s3/storages.py': 'unit/test_cli_rse_add.py',
    'rucio/cli/s3/sync.py': 'integration/test_bulk_download.py',
    'rucio/cli/s3/upload.py': 'integration/test_bulk_upload.py',
    'rucio/cli/s3/token.py': 'unit/test_cli_token.py',
    'rucio/client/s3bulk.py': 'integration/test_bulk_download.py',
    'rucio/client/s3files/content.py': 'unit/test_s3files_download.py',
    'rucio/client/s3session.py': 'unit/test_s3client.py',
    'rucio/common/s3/api.py': 'unit/test_web_s3.py',
    'rucio/common/s3/deadlines.py': 'unit/test_factory.py',
    'rucio/common/s3/range_record.py': 'unit/test_ranges.py',
    'rucio/common/s3/settings.py': 'unit/test_endpoint.py',
    'rucio/core/s3/rate_limiter.py': 'unit/test_rates.py',
    'rucio/core/s3/auth/grantees.py': 'unit/test_auth_access.py',
    'rucio/core/s3/auth/grants.py': 'unit/test_auth_access.py',
    'rucio/core/s3/auth/objects.py': 'unit/test_imports.py',
    'rucio/core/s3/auth/part_copies.py': 'unit/test_chaining.py',
    'rucio/core/s3/auth/signing_guards.py': 'unit/test_signing.py',
    'rucio/core/s3/buckets/bucket_settings.py': 'unit/test_changes.py',
    'rucio/core/s3/buckets/places.py': 'unit/test_lookup.py',
    'rucio/core/s3/buckets/probing.py': 'unit/test_probes.py',
    'rucio/core/s3/buckets/object_lock.py': 'attacks/test_unsigned_headers.py',
    'rucio/core/s3/configs.py': 'unit/test_changes.py',
    'rucio/core/s3/metadata.py': 'unit/test_imports.py',
    'rucio/core/s3/references.py': 'unit/test_twins.py',
    'rucio/daemons/s3/leftovers.py': 'unit/test_s3_database.py',
    'rucio/db/sqla/s3.py': 'unit/test_s3_database.py',
    'rucio/gateway/s3files.py': 'integration/test_rm.py',
    'rucio/gateway/s3.py': 'integration/test_rest_api.py',
    'rucio/gateway/s3events.py': 'unit/test_events.py',
    'rucio/gateway/s3health.py': 'unit/test_health.py',
    'rucio/gateway/s3imports.py': 'integration/test_imports.py',
    'rucio/gateway/s3names.py': 'integration/test_rest_api.py',
    'rucio/gateway/s3reconcile.py': 'integration/test_reconcile.py',
    'rucio/gateway/s3shares.py': 'unit/test_shares.py',
    'rucio/gateway/s3sts.py': 'unit/test_s3sts.py',
    'rucio/rse/s3translation.py': 'unit/test_protocols_s3.py',
    'rucio/transfertool/s3.py': 'unit/test_transfers.py',
    'rucio/web/rest/flaskapi/v1/s3.py': 'unit/test_web_s3.py',
    'rucio/web/rest/flaskapi/v1/s3base.py': 'unit/test_web_s3.py',
    'rucio/web/rest/flaskapi/v1/s3events.py': 'unit/test_web_s3.py',
    'rucio/web/rest/flaskapi/v1/s3sts.py': 'unit/test_s3sts.py',
    'rucio_s3_database.py': 'unit/test_s3_database.py',
    'rucio_s3_policy/permission.py': 'unit/test_policy_package.py',
    'rucio_s3_policy/schema.py': 'unit/test_policy_package.py',
}


def parts(module: Path) -> list[str]:
    """What tells modules apart: of lib/rucio/core/s3/auth/access.py it is core, auth, access."""
    *folders, _ = module.parts
    return [folder for folder in folders if folder not in ('rucio', 's3')] + [module.stem.removeprefix('rucio_s3_')]


def files(names: list[str]) -> set[str]:
    """The tests of modules are called by the last of their names, or by more of them."""
    return {f'test_{"_".join(names[start:])}.py' for start in range(len(names))}


def test_each_module_has_a_test_of_its_name():
    there = {path.name for path in TESTS.joinpath('unit').glob('test_*.py')}
    modules = [path.relative_to(LIB) for path in LIB.glob('rucio*/**/*.py')] + [path.relative_to(LIB) for path in LIB.glob('*.py')]
    left = [each for each in modules if each.stem != '__init__' and str(each) not in ELSEWHERE and not files(parts(each)[:-1]) & there]
    of = Counter(name for module in left for name in files(parts(module)))
    lost = [str(each) for each in left if not any(of[name] == 1 for name in files(parts(each)) & there)]
    assert not lost, 'call their tests by their names, or say in ELSEWHERE where they are'


def test_what_is_tested_elsewhere_is_there():
    assert [module for module, test in ELSEWHERE.items() if not (LIB / module).is_file() or not (TESTS / test).is_file()] == []


def test_the_long_tests_of_each_directory_are_run():
    """Those of tests/attacks were run by nobody."""
    long = {f'tests/{path.relative_to(TESTS).parts[0]}' for path in TESTS.rglob('*.py') if re.search(r'pytest\.mark\.long\b', path.read_text())}
    make = re.search(r'^LONG := (.*)$', (TESTS.parent / 'Makefile').read_text(), re.MULTILINE)
    ci = re.search(r'^parts=\((.*)\)$', (TESTS.parent / '.ci/run').read_text(), re.MULTILINE)
    assert make
    assert ci
    assert long == set(make[1].split())
    assert long == set(re.findall(r'tests/[a-z]+', ci[1]))
