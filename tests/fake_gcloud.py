#!/usr/bin/env python3
"""A gcloud without a cloud: what `launch.tpu_vm` needs of it, with the real one's ways to fail.

State is in the folder FAKE_GCLOUD. A host is a folder that serves as its home; `ssh` runs bash
there, so that what a shell would make of a command can be seen. plan.json says what goes wrong:
`create`, one outcome for each creation (ok, slow, half, quota, no_capacity, denied); `preempt_at`,
the ssh calls at which the machine is taken away; `ssh_fails`, those that
do not get through; `ssh_hangs`, those that are not answered; `describe_fails`;
`hosts`; `hang`, a word of a command that never answers.

gcloud cannot be installed from a package registry: nothing here is its code, and it was never
compared with the real one. FLAGS, beyond which a command ends with status 2 as gcloud's parser has
it, and NODE_STATES are written from knowledge of the references of gcloud (compute tpus) and of the
TPU API, not checked line by line. The states of a queued resource are those of its guide
(cloud.google.com/tpu/docs/queued-resources), looked up.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(os.environ['FAKE_GCLOUD'])

_ANY = {'zone', 'project', 'quiet', 'format', 'verbosity'}
_NEW = _ANY | {
    'accelerator-type', 'async', 'description', 'internal-ips', 'labels', 'metadata',
    'metadata-from-file', 'network', 'range', 'reserved', 'scopes', 'service-account',
    'spot', 'subnetwork', 'tags', 'topology', 'type',
}  # fmt: skip
_SSH = _ANY | {
    'batch-size', 'dry-run', 'force-key-file-overwrite', 'internal-ip', 'plain',
    'ssh-key-expiration', 'ssh-key-expire-after', 'ssh-key-file', 'strict-host-key-checking',
    'tunnel-through-iap', 'worker',
}  # fmt: skip
FLAGS = {
    ('tpu-vm', 'create'): _NEW | {'data-disk', 'preemptible', 'version'},
    ('tpu-vm', 'describe'): _ANY,
    ('tpu-vm', 'delete'): _ANY | {'async'},
    ('tpu-vm', 'ssh'): _SSH | {'command', 'node', 'output-directory', 'ssh-flag'},
    ('tpu-vm', 'scp'): _SSH | {'compress', 'recurse', 'scp-flag'},
    ('queued-resources', 'create'): _NEW | {
        'best-effort', 'guaranteed', 'node-count', 'node-id', 'node-prefix', 'runtime-version',
        'valid-after-duration', 'valid-after-time', 'valid-until-duration', 'valid-until-time',
    },
    ('queued-resources', 'describe'): _ANY,
    ('queued-resources', 'delete'): _ANY | {'async', 'force'},
}  # fmt: skip
# Node.State of the API.
NODE_STATES = (
    'CREATING', 'READY', 'RESTARTING', 'REIMAGING', 'DELETING', 'REPAIRING', 'STOPPED', 'STOPPING',
    'STARTING', 'PREEMPTED', 'TERMINATED', 'HIDING', 'HIDDEN', 'UNHIDING', 'UNKNOWN',
)  # fmt: skip


def main(arguments: list[str]) -> int:
    with (ROOT / 'calls.jsonl').open('a') as calls:
        calls.write(json.dumps(arguments) + '\n')
    plan = json.loads((ROOT / 'plan.json').read_text())
    if plan.get('hang') in arguments:
        time.sleep(60)
    if arguments[:2] == ['storage', 'rsync']:
        return 0
    lock = (ROOT / 'lock').open('w')
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert arguments[:2] == ['compute', 'tpus'], arguments
    kind, verb, *rest = arguments[2:]
    words = [word for word in rest if not word.startswith('--')]
    flags = dict(word[2:].partition('=')[::2] for word in rest if word.startswith('--'))
    assert flags.get('zone'), arguments
    unknown = sorted(set(flags) - FLAGS[kind, verb])
    if unknown:
        names = ' '.join(f'--{flag}' for flag in unknown)
        return fail(f'unrecognized arguments: {names}', 2)
    if kind == 'queued-resources':
        return queued(verb, words, flags, plan)
    return {'create': create, 'describe': describe, 'delete': delete, 'ssh': ssh, 'scp': scp}[verb](
        words, flags, plan
    )


def fail(text: str, status: int = 1) -> int:
    print(f'ERROR: (gcloud.compute.tpus.tpu-vm) {text}', file=sys.stderr)
    return status


def node_file(name: str) -> Path:
    return ROOT / 'nodes' / f'{name}.json'


def read_node(name: str) -> dict | None:
    return json.loads(node_file(name).read_text()) if node_file(name).exists() else None


def write_node(name: str, node: dict) -> None:
    assert node['state'] in NODE_STATES, node
    node_file(name).parent.mkdir(exist_ok=True)
    node_file(name).write_text(json.dumps(node))


def count(name: str) -> int:
    path = ROOT / f'{name}.count'
    number = int(path.read_text()) if path.exists() else 0
    path.write_text(str(number + 1))
    return number


def hosts(name: str) -> list[Path]:
    return sorted((ROOT / 'hosts' / name).iterdir())


def create(words: list[str], flags: dict, plan: dict) -> int:
    (name,) = words
    assert flags.get('version') or flags.get('runtime-version'), flags
    assert flags.get('accelerator-type') or (flags.get('type') and flags.get('topology')), flags
    outcomes = plan.get('create', [])
    number = count('create')
    outcome = outcomes[number] if number < len(outcomes) else 'ok'
    if read_node(name):
        return fail(f'ALREADY_EXISTS: {name}')
    if outcome == 'quota':
        return fail("Quota limit 'TPUV5sLitepodPerProjectPerZoneForTPUAPI' has been exceeded.")
    if outcome == 'no_capacity':
        return fail('There is no more capacity in the zone "us-west4-a"; try another zone.')
    if outcome == 'denied':
        return fail("PERMISSION_DENIED: Permission 'tpu.nodes.create' denied on project.")
    labels = dict([flags['labels'].split('=')]) if 'labels' in flags else {}
    state = {'slow': 'CREATING', 'half': 'CREATING'}.get(outcome, 'READY')
    becomes = {'slow': 'READY', 'half': 'TERMINATED'}.get(outcome)
    write_node(name, {'state': state, 'labels': labels, 'becomes': becomes, 'looks': 0})
    for host in range(plan.get('hosts', 1)):
        (ROOT / 'hosts' / name / str(host)).mkdir(parents=True)
    return fail('the connection was closed', 1) if outcome == 'half' else 0


def describe(words: list[str], flags: dict, plan: dict) -> int:
    (name,) = words
    node = read_node(name)
    if node is None:
        return fail(f'NOT_FOUND: Resource projects/p/locations/{flags["zone"]}/nodes/{name}')
    if count('describe') in plan.get('describe_fails', []):
        return fail('UNAVAILABLE: the service is currently unavailable.')
    node['looks'] += 1
    if node['becomes'] and node['looks'] > 3:
        node['state'], node['becomes'] = node['becomes'], None
    write_node(name, node)
    # The API leaves out what is empty.
    shown = {'state': node['state'], 'labels': node['labels']}
    name = f'projects/p/locations/{flags["zone"]}/nodes/{name}'
    print(json.dumps({'name': name, **{key: value for key, value in shown.items() if value}}))
    return 0


def queued(verb: str, words: list[str], flags: dict, plan: dict) -> int:
    (name,) = words
    path = ROOT / f'queued-{name}'
    if verb == 'create':
        assert flags['node-id'] == name
        path.write_text('0')
        return 0
    if not path.exists():
        return fail('NOT_FOUND: queued resource')
    if verb == 'delete':
        path.unlink()
        return delete(words, flags, plan) if read_node(name) else 0
    looks = int(path.read_text()) + 1
    path.write_text(str(looks))
    if looks == 3:
        write_node(name, {'state': 'READY', 'labels': {}, 'becomes': None, 'looks': 0})
        (ROOT / 'hosts' / name / '0').mkdir(parents=True)
    state = 'WAITING_FOR_RESOURCES' if looks < 3 else 'ACTIVE'
    print(json.dumps({'state': {'state': state}}))
    return 0


def delete(words: list[str], flags: dict, plan: dict) -> int:
    (name,) = words
    assert 'quiet' in flags
    if read_node(name) is None:
        return fail('NOT_FOUND: node')
    kill_hosts(name)
    node_file(name).unlink()
    shutil.rmtree(ROOT / 'hosts' / name)
    return 0


def kill_hosts(name: str) -> None:
    for host in hosts(name):
        pid = host / '.albert_jax/pid'
        if pid.exists():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(pid.read_text().split()[0]), signal.SIGKILL)


def ssh(words: list[str], flags: dict, plan: dict) -> int:
    (name,) = words
    node = read_node(name)
    if node is None or node['state'] != 'READY':
        return fail('Could not SSH into the instance: it is not running.', 255)
    number = count('ssh')
    if number in plan.get('preempt_at', []):
        kill_hosts(name)
        write_node(name, {**node, 'state': 'PREEMPTED'})
        return fail('Connection closed by remote host', 255)
    if number in plan.get('ssh_hangs', []):
        time.sleep(3)
    if number in plan.get('ssh_fails', []):
        return fail('Connection timed out', 255)
    chosen = hosts(name) if flags['worker'] == 'all' else [hosts(name)[int(flags['worker'])]]
    worst = 0
    for host in chosen:
        path = f'{ROOT / "bin"}:{os.environ["PATH"]}'
        env = {**os.environ, 'HOME': str(host), 'PATH': path, 'ALBERT_JAX_PAUSE': '0.1',
               'ALBERT_JAX_MAX_CRASHES': '3'}  # fmt: skip
        done = subprocess.run(['bash', '-c', flags['command']], cwd=host, env=env, check=False)
        worst = max(worst, done.returncode)
    return fail('a worker failed', worst) if worst else 0


def scp(words: list[str], flags: dict, plan: dict) -> int:
    source, target = words
    name, colon, _ = target.partition(':')
    assert colon and flags['worker'] == 'all'
    for host in hosts(name):
        shutil.copy(source, host)
    return 0


if __name__ == '__main__':
    # `--command=…` has spaces, and a flag without a value has none.
    sys.exit(main(sys.argv[1:]))
