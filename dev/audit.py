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

"""Ask PyPI for known vulnerabilities of what is installed for development and tests, with pip-audit (make audit).

Where PyPI's data cannot be had, that is said, and it is no failure. A vulnerability that nobody has judged is one.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

# What cannot be avoided, and why it does no harm here. Rucio's server wants urllib3<=1.26.19, and botocore takes what is there. Which versions of urllib3
# each one is in was read in urllib3's advisories in November 2026: those of 1.26.19, up to 2.8.0. What is newer is in PyPI's data only.
ACCEPTED = {
    'CVE-2025-50181': 'urllib3: redirects though they were switched off for all of a pool: botocore switches them off for each request (Retry(False))',
    'CVE-2025-66418': 'urllib3: chains of decompressions: botocore decodes nothing (decode_content=False)',
    'CVE-2025-66471': 'urllib3: compressed bodies become large: botocore decodes nothing (decode_content=False)',
    'CVE-2026-21441': 'urllib3: compressed bodies of redirects: botocore has it follow none (Retry(False))',
    'CVE-2026-44431': 'urllib3: redirects of a proxy that lead elsewhere get the token: botocore and requests have it follow none',
    'CVE-2026-97687': 'urllib3: settings of TLS for a server are used for its https proxy, too: here they never switch off verification',
    'CVE-2026-97689': 'urllib3: the line with the size of a chunk has no end: rucio.common.s3.parsing ends it (tests/attacks/test_hostile_storages.py)',
}
SECONDS = 600


def main() -> int:
    """Print what was found; 1: there is something that nobody has judged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('path', help='the site-packages to look at')
    packages = audited(parser.parse_args().path)
    known = [each for each in packages if 'skip_reason' not in each]
    if not known:
        sys.stdout.write(f"make audit: PyPI's data on vulnerabilities cannot be had here: none of {len(packages)} packages was looked at.\n")
        return 0
    found = {(each['name'], each['version'], identity(one)): one for each in known for one in each.get('vulns', [])}
    for (name, version, vulnerability), one in sorted(found.items()):
        fixed = ', '.join(one.get('fix_versions') or []) or 'nothing yet'
        sys.stdout.write(f'{name} {version}: {vulnerability}, fixed in {fixed}: {ACCEPTED.get(vulnerability, "NOT JUDGED")}\n')
    left_out = f', {len(packages) - len(known)} could not be looked at' if len(known) < len(packages) else ''
    sys.stdout.write(f'make audit: {len(known)} packages{left_out}, {len(found)} known vulnerabilities.\n')
    return int(any(vulnerability not in ACCEPTED for _, _, vulnerability in found))


def audited(path: str) -> list[dict[str, Any]]:
    """What pip-audit says of each package; nothing where it does not work."""
    command = [sys.executable, '-m', 'pip_audit', '--path', path, '--format', 'json', '--progress-spinner', 'off', '--timeout', '15']
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False)
        packages: list[dict[str, Any]] = json.loads(done.stdout)['dependencies']
    except (OSError, ValueError, LookupError, TypeError, subprocess.TimeoutExpired):
        return []
    return packages


def identity(vulnerability: dict[str, Any]) -> str:
    """Its number in the list of CVEs, if it has one."""
    names = [vulnerability['id'], *vulnerability.get('aliases', [])]
    return str(next((name for name in names if name.startswith('CVE-')), names[0]))


if __name__ == '__main__':
    sys.exit(main())
