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

"""The pages of the site that are made from something else: documents outside of docs/, and the commands' own help."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / 'docs'

# page -> what it shows; links to these files lead to the pages
SHOWN = {
    'change-notes': ROOT / 'changes' / 'README.md',
    'changelog': ROOT / 'CHANGELOG.md',
    'contributing': ROOT / 'CONTRIBUTING.md',
    'reporting': ROOT / 'SECURITY.md',
    'rse-definitions': ROOT / 'etc' / 'rse_configs' / 'README.md',
    'compose': ROOT / 'examples' / 'compose' / 'README.md',
}
_LINK = re.compile(r'\]\(([^)\s#:]+)(#[^)\s]*)?\)')


def source(page: str, text: str) -> str:
    """What Sphinx reads as a page.

    :param page: its name, without ``.md``.
    :param text: what stands in the file of that name.
    """
    if page == 'cli':
        return text + ''.join(commands())
    file = SHOWN.get(page, DOCS / f'{page}.md')
    text = file.read_text() if page in SHOWN else text
    if page == 'changelog':
        text += ''.join(unreleased())
    return _linked(text, file.parent, DOCS.joinpath(page).parent)


def _linked(text: str, before: Path, now: Path) -> str:
    """The text with links that are right where the page is."""
    pages = {path: DOCS / f'{page}.md' for page, path in SHOWN.items()}

    def link(found: re.Match[str]) -> str:
        target = (before / found[1]).resolve()
        return f']({os.path.relpath(pages.get(target, target), now)}{found[2] or ""})'

    return _LINK.sub(link, text)


def unreleased() -> Iterator[str]:
    """The notes of ``changes/``, which `make changelog` writes into the changelog."""
    yield '\n## Not yet released\n'
    for kind in ('security', 'added', 'changed', 'removed', 'fixed'):
        if notes := sorted(ROOT.joinpath('changes').glob(f'*.{kind}.md')):
            yield f'\n### {kind.capitalize()}\n\n'
            yield from (f'- {note.read_text().strip()}\n'.replace('\n', '\n  ').rstrip() + '\n' for note in notes)


def commands() -> Iterator[str]:
    """A section for each command of ``rucio s3``, as ``--help`` shows it. No server is asked."""
    import click  # noqa: PLC0415 - with Rucio: only the build of the site has it

    from rucio.cli.s3 import s3  # noqa: PLC0415

    def sections(command: click.Command, name: str) -> Iterator[str]:
        context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
        if isinstance(command, click.Group):
            for each in command.list_commands(context):
                if (found := command.get_command(context, each)) and not found.hidden:
                    yield from sections(found, f'{name} {each}')
        else:
            yield f'\n## {name}\n\n```text\n{command.get_help(context)}\n```\n'

    yield from sections(s3, 'rucio s3')
