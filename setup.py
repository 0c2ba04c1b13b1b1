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

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# setuptools never empties its build directory: a module that was deleted or renamed would still be in the next wheel.
shutil.rmtree(Path(__file__).parent / 'build' / 'lib', ignore_errors=True)

PTH = 'rucio-s3.pth'


class BuildWithPth(build_py):
    """Puts the .pth file beside the modules: only there does Python read it, and pip remove it."""

    def run(self) -> None:
        super().run()
        self.copy_file(f'lib/{PTH}', str(Path(self.build_lib, PTH)))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), str(Path(self.build_lib, PTH))]

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), f'lib/{PTH}']


setup(cmdclass={'build_py': BuildWithPth})
