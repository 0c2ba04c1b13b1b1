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

"""Link the modules of lib/ into the stock Rucio of this interpreter's environment: ``python dev/link.py``; or of another folder.

Python finds ``rucio`` once, where stock Rucio is, so an editable install of this project would be invisible. Each file gets a
link of its own, not each directory: a later ``pip install`` then replaces links, and never writes through one into lib/.
"""

import sys
import sysconfig
from pathlib import Path

LIB = Path(__file__).resolve().parent.parent / 'lib'
LEFT_OUT = ('__pycache__', '.egg-info', '.ruff_cache', 'ruff.toml')  # not in the wheel


def sources() -> list[Path]:
    """Every file that the wheel would install, relative to lib/."""
    files = (path.relative_to(LIB) for path in sorted(LIB.rglob('*')) if path.is_file())
    return [path for path in files if not any(part.endswith(LEFT_OUT) or part == '.ruff_cache' for part in path.parts)]


def remove_links(site: Path) -> None:
    """Remove the links of an earlier run: what they point to may be gone."""
    for path in [*site.glob('*'), *site.glob('rucio*/**/*')]:
        if path.is_symlink() and LIB in path.readlink().parents:
            path.unlink()


def link(site: Path) -> int:
    """Link every file and say how many there are."""
    for source in sources():
        target = site / source
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(LIB / source)
    return len(sources())


def main() -> None:
    site = Path(sys.argv[1] if sys.argv[1:] else sysconfig.get_path('purelib')).resolve()
    if not site.joinpath('rucio', 'version.py').is_file():
        sys.exit(f'There is no stock Rucio in {site}: install rucio or rucio-clients there first (make dev does).')
    remove_links(site)
    print(f'{link(site)} files of {LIB} are linked into {site}.')


if __name__ == '__main__':
    main()
