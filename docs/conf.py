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

"""How Sphinx builds the site: `make docs`. Nothing is fetched, and every warning is an error."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'dev'))

import pages

project = 'rucio-s3'
copyright = 'European Organization for Nuclear Research (CERN)'  # noqa: A001 - Sphinx names it
version = release = re.search(r'^version = "(.*)"', pages.ROOT.joinpath('pyproject.toml').read_text(), re.MULTILINE)[1]

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
exclude_patterns = ['_build']

myst_enable_extensions = ['attrs_inline', 'colon_fence']
myst_heading_anchors = 4  # the links to headings that work on the hosting site work here, too
highlight_language = 'text'  # most blocks are terminal sessions

autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_format = 'short'

# Each name that our own docstrings refer to must exist; those of Rucio, boto3 and Python are on other sites.
nitpicky = True
nitpick_ignore_regex = [('py:.*', r'(?!rucio\.client\.s3client|rucio\.rse\.protocols\.s3).*')]

html_theme = 'pydata_sphinx_theme'
html_title = f'rucio-s3 {version}'
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    'navigation_with_keys': False,
    'show_toc_level': 2,
    'navbar_align': 'left',
    'secondary_sidebar_items': ['page-toc'],
}


def setup(app: Any) -> None:
    """Some pages are made from what is elsewhere."""
    app.connect('source-read', lambda _, page, text: text.__setitem__(0, pages.source(page, text[0])))
