"""A Cloud TPU VM or a slice of them, by its exact name."""

import base64
import dataclasses
import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from albert_jax.cli.errors import UserError
from albert_jax.planning.topologies import Slice, parse
from launch.gcloud import Gcloud, NotFound

_NAME = r'[a-z]([-a-z0-9]{0,61}[a-z0-9])?'
_BUCKET = r'gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]'
_LETTERS = 'small letters, digits and dashes, as in albert-base'
# What Google Cloud takes for each flag, and what a person is told.
_FORMS = {
    'NAME': (_NAME, _LETTERS),
    '--zone': (r'[a-z]+-[a-z]+[0-9]+-[a-z]', 'as in us-west4-a'),
    '--project': (r'[a-z][-a-z0-9]{4,28}[a-z0-9]', "a project's id, as in my-project-123"),
    '--bucket': (_BUCKET, 'as in gs://my-bucket'),
    '--corpus': (_BUCKET + r'(/[A-Za-z0-9._=-]+)+', 'as in gs://my-bucket/corpus'),
    '--runtime': (r'[a-z0-9][a-z0-9._-]*', 'as in v2-alpha-tpuv5-lite'),
    '--network': (_NAME, _LETTERS),
    '--service_account': (r'[A-Za-z0-9._-]+@[A-Za-z0-9.-]+', 'as in name@project.iam…'),
}

# Google's names: of the kind, how many cores its accelerator types count a chip, its runtime.
KINDS = {
    'v2': ('v2', 2, 'tpu-ubuntu2204-base'),
    'v3': ('v3', 2, 'tpu-ubuntu2204-base'),
    'v4': ('v4', 2, 'tpu-ubuntu2204-base'),
    'v5e': ('v5litepod', 1, 'v2-alpha-tpuv5-lite'),
    'v5p': ('v5p', 2, 'v2-alpha-tpuv5'),
    'v6e': ('v6e', 1, 'v2-alpha-tpuv6e'),
}
# Of every machine that is created here; no other is ever deleted unasked.
_LABEL = ('created-by', 'albert-jax')

READY, ABSENT = 'READY', 'ABSENT'
# Taken away by Google: what may be deleted and made anew.
TAKEN = ('PREEMPTED', 'TERMINATED', 'SUSPENDED')
COMING = ('CREATING', 'STARTING', 'RESTARTING', 'REPAIRING', 'REIMAGING', 'WAITING_FOR_RESOURCES',
          'ACCEPTED', 'PROVISIONING')  # fmt: skip
GOING = ('DELETING', 'STOPPING', 'SUSPENDING', 'HIDING')
# On every host.
_REMOTE_HOME = '.albert_jax'
_ARCHIVE = 'albert_jax.tar.gz'
# Installing takes minutes, copying a corpus longer.
_SETUP_SECONDS = 3 * 3600
SSH_SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class Description:
    """What to create, by Google's names; empty for Google's or this program's default.

    Args:
      name: of the machine, exactly.
      zone: as in us-west4-a.
      topology: the slice, as in v5e:4x4; needed only to create it.
      runtime: the software version; that of the chips if empty.
      service_account: that the machine runs as.
      network: of the machine.
      is_spot: cheaper, and may be taken away.
      is_queued: asked for as a queued resource.

    Raises:
      UserError: if a name is not one that Google Cloud could have.
    """

    name: str
    zone: str
    topology: str = ''
    runtime: str = ''
    service_account: str = ''
    network: str = ''
    is_spot: bool = False
    is_queued: bool = False

    def __post_init__(self) -> None:
        check('NAME', self.name)
        check('--zone', self.zone)
        for flag in ('runtime', 'network', 'service_account'):
            if getattr(self, flag):
                check(f'--{flag}', getattr(self, flag))
        if self.topology and self.slice.chip.kind not in KINDS:
            raise UserError(
                f'--topology={self.topology}: Cloud TPU VMs are {", ".join(KINDS)}; newer chips '
                f'are had through GKE (launch/README.md).'
            )

    @property
    def slice(self) -> Slice:
        """The slice that the topology names."""
        return parse(self.topology)

    @property
    def accelerator(self) -> list[str]:
        """gcloud's flags for the chips."""
        kind, cores, _ = KINDS[self.slice.chip.kind]
        if len(self.slice.shape) == 3:
            shape = 'x'.join(map(str, self.slice.shape))
            return [f'--type={kind}', f'--topology={shape}']
        return [f'--accelerator-type={kind}-{self.slice.num_chips * cores}']

    @property
    def version(self) -> str:
        """The runtime: as asked, or the one for these chips."""
        return self.runtime or KINDS[self.slice.chip.kind][2]


def check(flag: str, value: str) -> None:
    """Refuses a value that Google Cloud could not take for a flag.

    Args:
      flag: one of `NAME`, `--zone`, `--project`, `--bucket`, `--corpus`, `--runtime`, `--network`
        and `--service_account`.
      value: of the flag.

    Raises:
      UserError: with the form that it must have.
    """
    form, example = _FORMS[flag]
    if not re.fullmatch(form, value):
        raise UserError(f'{flag} is {value!r}; it must be {example}.')


class Machine:
    """A TPU VM or slice, there or not, and what can be done with it.

    Args:
      gcloud: how it is reached.
      description: its name and zone; the rest only to create it.
    """

    def __init__(self, gcloud: Gcloud, description: Description) -> None:
        self._gcloud = gcloud
        self.description = description
        self._archive: tempfile.TemporaryDirectory[str] | None = None
        self._commit = ''
        self._where = f'--zone={description.zone}'

    @property
    def name(self) -> str:
        """Its exact name."""
        return self.description.name

    def state(self) -> str:
        """READY, one of COMING or GOING, ABSENT, or what else Google says (PREEMPTED, …).

        Raises:
          UserError: if gcloud fails.
        """
        self._gcloud.comment('Look whether the machine is there, and what it does.')
        node = self._describe('tpu-vm')
        if node is not None:
            return str(node.get('state', 'UNKNOWN'))
        queued = self._describe('queued-resources') if self.description.is_queued else None
        return ABSENT if queued is None else str(queued.get('state', {}).get('state', 'UNKNOWN'))

    def is_ours(self) -> bool:
        """Whether this program created it."""
        node = self._describe('tpu-vm')
        if node is None and self.description.is_queued:
            queued = self._describe('queued-resources') or {}
            specs = queued.get('tpu', {}).get('nodeSpec', [{}])
            node = specs[0].get('node', {}) if specs else {}
        return (node or {}).get('labels', {}).get(_LABEL[0]) == _LABEL[1]

    def _describe(self, kind: str) -> dict | None:
        try:
            return self._gcloud.read('compute', 'tpus', kind, 'describe', self.name, self._where)
        except NotFound:
            return None

    def create(self) -> None:
        """Asks for the machine; a queued one may come much later.

        Raises:
          NoCapacity: if the zone has none free.
          UserError: if gcloud refuses.
        """
        wanted = self.description
        if not wanted.topology:
            raise UserError('--topology is missing; give the slice to create, as in v5e:4x4.')
        self._gcloud.comment('Create the machine.')
        options = [self._where, *wanted.accelerator]
        if wanted.is_spot:
            options.append('--spot')
        if wanted.service_account:
            options.append(f'--service-account={wanted.service_account}')
        if wanted.network:
            options.append(f'--network={wanted.network}')
        label = f'--labels={_LABEL[0]}={_LABEL[1]}'
        # Buckets need more than the narrow default.
        scope = '--scopes=https://www.googleapis.com/auth/cloud-platform'
        if wanted.is_queued:
            self._gcloud.run(
                'compute', 'tpus', 'queued-resources', 'create', self.name,
                f'--node-id={self.name}', f'--runtime-version={wanted.version}', *options, label,
                scope,
            )  # fmt: skip
        else:
            self._gcloud.run(
                'compute', 'tpus', 'tpu-vm', 'create', self.name, f'--version={wanted.version}',
                *options, label, scope,
            )  # fmt: skip

    def delete(self) -> None:
        """Deletes the machine of exactly this name, and its place in the queue.

        Raises:
          UserError: if gcloud fails.
        """
        self._gcloud.comment('Delete the machine of exactly this name.')
        if self.description.is_queued:
            self._delete('queued-resources', '--force')
        else:
            self._delete('tpu-vm')

    def _delete(self, kind: str, *options: str) -> None:
        try:
            self._gcloud.run(
                'compute', 'tpus', kind, 'delete', self.name, self._where, '--quiet', *options
            )
        except NotFound:
            return

    def ssh(
        self, script: str, worker: str = 'all', timeout: float | None = None, is_shown: bool = False
    ) -> str:
        """Runs a script with bash on one host or all; the caller quotes what is not its own.

        Raises:
          UserError: if a host cannot be reached or the script fails.
        """
        return self._gcloud.run(
            'compute', 'tpus', 'tpu-vm', 'ssh', self.name, self._where, f'--worker={worker}',
            f'--command={script}', timeout=timeout, is_shown=is_shown,
        )  # fmt: skip

    def pack(self, refuses_changes: bool) -> str:
        """Packs the commit once: what is edited while it runs never gets to a machine made anew.

        Args:
          refuses_changes: whether there may be nothing that is not committed.

        Raises:
          UserError: if there is.
        """
        if self._gcloud.is_dry:
            return 'COMMIT'
        if self._archive is None:
            if refuses_changes and _git('status', '--porcelain'):
                raise UserError(
                    'There are changes that are not committed; commit them, so that the run can be '
                    'made again from its commit.'
                )
            self._archive = tempfile.TemporaryDirectory()
            archive = Path(self._archive.name) / _ARCHIVE
            self._commit = _git('rev-parse', 'HEAD')
            _git('archive', '--format=tar.gz', f'--output={archive}', self._commit)
        return self._commit

    def setup(self, bucket: str, corpus: str) -> str:
        """Brings the packed code and its lock to every host; the commit.

        Args:
          bucket: to mount at /mnt/bucket, gs://NAME; none if empty.
          corpus: to copy to ~/corpus of every host, gs://NAME/FOLDER; none if empty.

        Raises:
          UserError: if there are changes that are not committed, a run is there, or a host fails.
        """
        commit = self.pack(refuses_changes=True)
        folder = self._archive.name if self._archive else '.'
        self._gcloud.comment('Copy this commit, packed by git archive, to every host.')
        self._gcloud.run(
            'compute', 'tpus', 'tpu-vm', 'scp', f'{folder}/{_ARCHIVE}', f'{self.name}:',
            self._where, '--worker=all', timeout=_SETUP_SECONDS,
        )  # fmt: skip
        state = '~/albert_jax/launch/state.sh'
        self._gcloud.comment('Unpack and install it there, mount the bucket, copy the corpus.')
        self.ssh(
            'set -e; mkdir -p ~/albert_jax; cd ~/albert_jax; '
            f'if [ -f {state} ] && bash {state} | grep -q running; then '
            'echo "ERROR: a command runs here; stop it first" >&2; exit 3; fi; '
            'find . -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +; '
            # With the time of now, so that make sees a lock that is another.
            f'tar xzmf ~/{_ARCHIVE}; '
            f'bash launch/setup.sh {shlex.quote(bucket)} {shlex.quote(corpus)}; '
            f'echo {commit} > ~/{_REMOTE_HOME}/commit',
            timeout=_SETUP_SECONDS,
        )
        return commit

    def is_set_up(self) -> bool:
        """Whether all hosts have the packed commit already.

        Raises:
          UserError: if a host cannot be reached.
        """
        commit = self.pack(refuses_changes=False)
        commits = self.ssh(
            f'cat ~/{_REMOTE_HOME}/commit 2>/dev/null || echo none', timeout=SSH_SECONDS
        ).split()
        return bool(commits) and set(commits) == {commit}

    def run(self, command: Sequence[str]) -> None:
        """Starts a command on every host, detached, to be started again whenever it crashes.

        Args:
          command: the program and its arguments, none of which a shell will interpret.

        Raises:
          UserError: if one runs there already, or a host cannot be reached.
        """
        text = f'export PATH=~/albert_jax/.venv/bin:"$PATH"\nexec {shlex.join(command)}\n'
        self._gcloud.comment(
            f'Start the command on every host, detached. In base64, so that no shell on the way '
            f'changes it:\n{text.rstrip()}'
        )
        packed = base64.b64encode(text.encode()).decode()
        self.ssh(
            f'bash ~/albert_jax/launch/start.sh {packed}',
            timeout=300,
        )

    def progress(self) -> dict[str, int]:
        """How many hosts are in each state: running, finished, failed, stopped, lost, none.

        Raises:
          UserError: if a host cannot be reached.
        """
        script = '~/albert_jax/launch/state.sh'
        self._gcloud.comment('Ask every host whether the command runs.')
        text = self.ssh(f'[ -f {script} ] && bash {script} || echo state=none', timeout=SSH_SECONDS)
        states = [line.partition('=')[2] for line in text.splitlines() if line.startswith('state=')]
        return {state: states.count(state) for state in dict.fromkeys(states)}

    def stop(self) -> None:
        """Tells the run on every host to save and end.

        Raises:
          UserError: if a host cannot be reached.
        """
        script = '~/albert_jax/launch/stop.sh'
        self._gcloud.comment('Have the run save and end on every host.')
        self.ssh(f'if [ -f {script} ]; then bash {script}; fi', timeout=900)

    def logs(self, num_lines: int, is_followed: bool, worker: str = '0') -> None:
        """Shows what a host has printed.

        Raises:
          UserError: if it cannot be reached.
        """
        follow = ' --follow' if is_followed else ''
        self._gcloud.comment(f'Show the last {num_lines} lines of the log.')
        script = f'tail --lines={num_lines}{follow} ~/{_REMOTE_HOME}/log.txt'
        self.ssh(script, worker, is_shown=True)


def _git(*arguments: str) -> str:
    root = Path(__file__).parents[1]
    try:
        done = subprocess.run(
            ['git', *arguments], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, 'stderr', '') or str(error)
        raise UserError(f'git {arguments[0]} failed in {root}: {reason.strip()}') from error
    return done.stdout.strip()
