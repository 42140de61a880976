"""Google's own command line, called without a shell, its refusals turned into one sentence."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from albert_jax.cli.errors import UserError

# What gcloud says on stderr, and what it means to a person; the first match counts.
_REASONS = (
    (('quota exceeded', 'quota limit', 'quota metric', "quota '"),
     'the quota of the project is too small; ask for more under IAM & Admin, Quotas, or take '
     'another --topology or --zone'),
    (('permission_denied', 'does not have permission', 'forbidden'),
     'the account may not do that in this project; it needs the role TPU Admin'),
    (('not currently have an active account', 'reauthentication', 'gcloud auth login'),
     'gcloud is not logged in; run gcloud auth login'),
    (('service_disabled', 'has not been used in project', 'api not enabled'),
     'the Cloud TPU API is off in this project; run gcloud services enable tpu.googleapis.com'),
)  # fmt: skip
_NO_CAPACITY = ('no more capacity', 'not enough resources', 'stockout', 'insufficient capacity')
_PASSING = (
    'unavailable',
    'internal error',
    'timed out',
    'connection',
    '502',
    '503',
    'backend error',
)
_NOT_FOUND = ('not_found', 'not found', 'could not be found')


class NoCapacity(UserError):
    """The zone has no such TPU free now; later it may."""


class Unreachable(UserError):
    """Google or a host did not answer, or a command failed on a host; later it may not."""


class NotFound(UserError):
    """There is nothing of that name."""


class Gcloud:
    """Runs gcloud.

    Args:
      is_dry: print each command and run none; what would be read is then empty.
      project: for all commands; empty for gcloud's own.
    """

    def __init__(self, is_dry: bool, project: str = '') -> None:
        self.is_dry = is_dry
        self._project = project
        if not is_dry and shutil.which('gcloud') is None:
            raise UserError(
                'gcloud is not installed; get the Google Cloud CLI (cloud.google.com/sdk), or see '
                'the commands with --dry_run.'
            )

    def comment(self, text: str) -> None:
        """Says in a dry run what the commands that follow are for."""
        if self.is_dry:
            print('\n' + '\n'.join(f'# {line}' for line in text.splitlines()))

    def run(self, *arguments: str, timeout: float | None = None, is_shown: bool = False) -> str:
        """Runs a command and gives its output.

        Args:
          arguments: after `gcloud`.
          timeout: seconds.
          is_shown: let the output go to the terminal instead.

        Raises:
          NotFound: if there is nothing of that name.
          NoCapacity: if the zone has nothing free.
          Unreachable: if it takes longer than the timeout, or a host fails.
          UserError: if gcloud refuses or fails otherwise.
        """
        command = ['gcloud', *arguments]
        if self._project:
            command.append(f'--project={self._project}')
        if self.is_dry:
            print(_readable(command))
            return ''
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=None if is_shown else subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors='replace',
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Unreachable(
                f'gcloud did not answer in {timeout:.0f} s ({shlex.join(command[:6])} …).'
            ) from error
        if done.returncode:
            raise _failure(command, done.stderr, done.returncode)
        return done.stdout or ''

    def read(self, *arguments: str, timeout: float | None = 120) -> Any:
        """The JSON that a command gives; None in a dry run.

        Raises:
          NotFound: if there is nothing of that name.
          UserError: if gcloud fails, or says something that is not JSON.
        """
        text = self.run(*arguments, '--format=json', timeout=timeout)
        if self.is_dry:
            return None
        try:
            return json.loads(text)
        except ValueError as error:
            raise UserError(f'gcloud gave no JSON: {text.strip()[:200]!r}.') from error


def _readable(command: Sequence[str]) -> str:
    """A command as a person would type it: an option a line, behind what it is about."""
    first = [word for word in command if not word.startswith('--')]
    options = [word for word in command if word.startswith('--')]
    # The name of an option outside of the quotes.
    shown = []
    for option in options:
        name, equals, value = option.partition('=')
        shown.append(f'{name}={shlex.quote(value)}' if equals else name)
    return ' \\\n    '.join([shlex.join(first), *shown])


def _failure(command: Sequence[str], stderr: str, status: int) -> UserError:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if 'ERROR' in line]
    message = (errors or lines or ['it said nothing'])[0]
    what = shlex.join(command[:6])
    is_remote = {'ssh', 'scp'} & set(command[:6])
    # The output of a host is not a message of Google's.
    lower = '\n'.join(errors if is_remote else lines).lower()
    if is_remote:
        lower = '\n'.join(line for line in lower.splitlines() if '(gcloud.' in line)
    if any(mark in lower for mark in _NO_CAPACITY):
        return NoCapacity(f'The zone has no such TPU free now ({message[:200]}).')
    for marks, meaning in _REASONS:
        if any(mark in lower for mark in marks):
            return UserError(f'{what} was refused: {meaning} ({message[:300]}).')
    is_passing = is_remote or any(mark in lower for mark in _PASSING)
    if not is_remote and any(mark in lower for mark in _NOT_FOUND):
        return NotFound(f'{what}: {message[:300]}')
    kind = Unreachable if is_passing else UserError
    return kind(f'{what} ended with status {status}: {message[:300]}')
