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

"""The files of examples/ that nothing here runs: a program that reads them takes them, and what they name is there.

docs/deployment.md says of each file how it was checked. Compose and Apache have tests in tests/integration.
"""

import re
import shlex
import shutil
import subprocess
import sysconfig
from configparser import RawConfigParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / 'examples'
UNITS = sorted(EXAMPLES.glob('systemd/*.service'))
LIB = ROOT / 'lib' / 'rucio'
SUFFIXES = {'count': ['_total'], 'gauge': [''], 'time_of': ['_bucket', '_count', '_sum']}
# The top-level values of Rucio's charts, version 40.0.0: github.com/rucio/helm-charts, commit 722699c1037f.
CHARTS = {
    'rucio-server': """
        additionalEnvs affinity automaticRestart config deploymentAnnotations errorLog errorLogsExporterResources exposeErrorLogs ftsRenewal
        hostPathMounts hostname httpd_config image imagePullSecrets imageRegistry ingress livenessProbe logFormat metricsExporterResources
        minReadySeconds monitoring nodeSelector policyPackages readinessProbe replicaCount secretMounts serverResources serverType service strategy
        tlsSecretName tolerations useDeprecatedImplicitSecrets useSSL wsgi
    """,
    'rucio-daemons': """
        abacusAccount abacusAccountCount abacusCollectionReplica abacusCollectionReplicaCount abacusRse abacusRseCount additionalEnvs automaticRestart
        automatix automatixCount cacheConsumer cacheConsumerCount config conveyorFinisher conveyorFinisherCount conveyorPoller conveyorPollerCount
        conveyorPreparer conveyorPreparerCount conveyorReceiver conveyorReceiverCount conveyorStager conveyorStagerCount conveyorThrottler
        conveyorThrottlerCount conveyorTransferSubmitter conveyorTransferSubmitterCount darkReaper darkReaperCount deploymentAnnotations ftsRenewal
        hermes hermesCount hermesLegacy hermesLegacyCount image imagePullSecrets imageRegistry judgeCleaner judgeCleanerCount judgeEvaluator
        judgeEvaluatorCount judgeInjector judgeInjectorCount judgeRepairer judgeRepairerCount minReadySeconds minos minosCount minosTemporaryExpiration
        minosTemporaryExpirationCount monitoring necromancer necromancerCount oauthManager oauthManagerCount podAnnotations podLabels policyPackages
        reaper reaperCount replicaRecoverer replicaRecovererCount secretMounts strategy tracerKronos tracerKronosCount transmogrifier transmogrifierCount
        undertaker undertakerCount useDeprecatedImplicitSecrets
    """,
}
KINDS = {'counter': 'count', 'gauge': 'gauge', 'timer': 'time_of'}  # Rucio's names, and those of common/s3/monitoring.py


def run(*command):
    """What a program says of a file, where it is installed; it has to be content."""
    if not shutil.which(command[0]):
        pytest.skip(f'{command[0]} is not installed')
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def command_of(unit):
    """The command line that a unit starts."""
    parser = RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(unit)
    return shlex.split(parser['Service']['ExecStart'])


def test_there_is_a_unit_for_each_daemon_of_ours():
    daemons = set(re.findall(r'^(rucio-s3-(?!database)\w+) = ', ROOT.joinpath('pyproject.toml').read_text(), re.MULTILINE))
    assert daemons == {unit.stem for unit in UNITS if unit.stem.startswith('rucio-s3')}


@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_the_unit(unit, tmp_path):
    text = unit.read_text()
    program = command_of(unit)[0]
    there = tmp_path / unit.name
    there.write_text(text.replace(f'ExecStart={program}', 'ExecStart=/bin/true'))
    assert run('systemd-analyze', 'verify', '--man=no', str(there)) == ''


@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_program_that_has_these_options(unit):
    pytest.importorskip('sqlalchemy', reason='rucio-clients has no daemons')
    from rucio.daemons.s3 import copier, reconciler  # noqa: PLC0415

    program, *options = command_of(unit)
    assert Path(program).name == unit.stem
    parsers = {'rucio-s3-copier': copier.get_parser, 'rucio-s3-reconciler': reconciler.get_parser}
    if unit.stem in parsers:
        parsers[unit.stem]().parse_args(options)
    else:  # Rucio's own
        assert Path(sysconfig.get_path('scripts'), unit.stem).exists()


def exported():
    """The names under which Prometheus finds what lib/ counts."""
    found = set()
    for path in LIB.rglob('*.py'):
        text = path.read_text()
        if daemon := re.search(r"MetricManager\(module='([\w.]+)'\)", text):
            made = [(KINDS[kind], name) for kind, name in re.findall(r"\bMETRICS\.(\w+)\(\s*'(\w+)", text)]
        else:
            made = re.findall(r"\b(count|gauge|time_of)\(\s*'(\w+)',\s*'", text)
        layer = (daemon[1] if daemon else 'rucio.core.s3').replace('.', '_')
        found |= {f'{layer}_{name}{suffix}' for kind, name in made for suffix in SUFFIXES[kind]}
    return found


def test_each_alert_is_about_metrics_that_there_are():
    (group,) = yaml.safe_load(EXAMPLES.joinpath('prometheus', 'rucio-s3.rules.yml').read_text())['groups']
    for rule in group['rules']:
        names = set(re.findall(r'\brucio_\w+', rule['expr']))
        assert names, rule
        assert names <= exported(), rule


def test_prometheus_takes_its_files():
    run('promtool', 'check', 'config', str(EXAMPLES / 'prometheus' / 'prometheus.yml'))


def helm(name):
    """A file of examples/helm."""
    return yaml.safe_load(EXAMPLES.joinpath('helm', f'{name}.yaml').read_text())


@pytest.mark.parametrize('chart', CHARTS)
def test_helm_values_are_those_of_the_chart(chart):
    values = helm(chart)
    assert set(values) <= set(CHARTS[chart].split())
    counted = {name.removesuffix('Count') for name in values if name.endswith('Count') and name != 'replicaCount'}
    assert {name for name, value in values.items() if isinstance(value, dict)} - {'image', 'wsgi', 'httpd_config', 'config'} <= counted


def test_daemons_in_kubernetes_run_with_the_image_and_the_keys_of_the_chart():
    pytest.importorskip('sqlalchemy', reason='rucio-clients has no daemons')
    from rucio.daemons.s3 import copier, reconciler  # noqa: PLC0415

    values, found = helm('rucio-daemons'), []
    for deployment in helm('s3-daemons')['items']:
        pod = deployment['spec']['template']
        selected = {'app': deployment['metadata']['name']}
        assert deployment['spec']['selector']['matchLabels'] == selected
        # By which the chart's service, where Prometheus asks, selects pods: templates/service.yaml.
        assert pod['metadata']['labels'] == {**selected, 'app-group': 'rucio-daemons', 'release': 'daemons'}
        (container,) = pod['spec']['containers']
        assert [port['name'] for port in container['ports']] == ['metrics']
        assert container['image'] == f'{values["image"]["repository"]}:{values["image"]["tag"]}'
        mounts = {mount['name']: mount['mountPath'] for mount in container['volumeMounts']}
        assert mounts['rse-accounts'] == values['secretMounts'][0]['mountPath']
        assert set(mounts) == {volume['name'] for volume in pod['spec']['volumes']}
        environment = {each['name']: each['value'] for each in container['env']}
        daemon = {'s3-copier': copier, 's3-reconciler': reconciler}[environment['RUCIO_DAEMON']]
        daemon.get_parser().parse_args(shlex.split(environment['RUCIO_DAEMON_ARGS']))
        found.append(f'rucio-{environment["RUCIO_DAEMON"]}')
    assert sorted(found) == sorted(unit.stem for unit in UNITS if unit.stem.startswith('rucio-s3'))


def test_to_uninstall_is_to_take_back_what_the_examples_set():
    """Rucio loads no protocol class, and its server does not start, if a module is missing that rucio.cfg names."""
    settings = [section.items() for section in helm('rucio-server')['config'].values()]
    for path in ROOT.glob('etc/site-*.cfg'):
        parser = RawConfigParser()
        parser.read(path)
        settings += [parser.items(name) for name in parser.sections() if not name.startswith('s3')]
    ours = {word for section in settings for _, value in section for word in value.replace(',', ' ').split() if re.search(r'(?<!ft)s3', word)}
    assert ours >= {'s3', 'rucio_s3_policy', 'rucio.rse.s3translation'}
    said = ROOT.joinpath('docs', 'operators.md').read_text().partition('## Uninstall\n')[2]
    named = {quoted.rpartition(' = ')[2] for quoted in re.findall(r'`([^`]+)`', said) if not quoted.startswith('sign_url')}
    assert {*ours, 's3events'} - named == set()
