"""Watches a run on a TPU VM until it ends, and creates the machine again after a preemption."""

import dataclasses
import time
from collections.abc import Sequence

from albert_jax.cli.errors import UserError
from launch.gcloud import NoCapacity, Unreachable
from launch.machine import ABSENT, COMING, GOING, READY, TAKEN, Machine

# Polls in a row that a machine may leave without an answer.
_MAX_SILENT_POLLS = 10


@dataclasses.dataclass(frozen=True)
class WatchOptions:
    """What a machine needs for the run, and how it is watched."""

    # gs://NAME, mounted at /mnt/bucket; empty for none.
    bucket: str
    # gs://NAME/FOLDER, copied to ~/corpus; empty for none.
    corpus: str
    poll_seconds: float
    # Of the log, shown when the run has failed.
    num_log_lines: int
    # Whether the machine is deleted when the run is finished.
    is_deleted_when_done: bool


def wait_until_settled(machine: Machine, poll_seconds: float) -> str:
    """Waits while the machine is coming or going; its state then.

    Raises:
      UserError: if gcloud fails.
    """
    last = ''
    while True:
        state = machine.state()
        if state != last:
            print(f'{machine.name}: {state}', flush=True)
            last = state
        # A queued resource is ACTIVE before its machine shows.
        if state not in (*COMING, *GOING, 'ACTIVE'):
            return state
        time.sleep(poll_seconds)


class Watch:
    """A command that is to run on a machine until it ends, whatever happens to the machine.

    Args:
      machine: there or not.
      command: the program and its arguments, none of which a shell will interpret.
      options: what the machine needs, and how it is watched.
    """

    def __init__(self, machine: Machine, command: Sequence[str], options: WatchOptions) -> None:
        self._machine = machine
        self._command = command
        self._options = options

    def run(self) -> int:
        """Watches until the run is finished, has failed or was stopped; the exit status.

        Raises:
          UserError: if gcloud refuses, or the machine is in a state that a person must look after.
        """
        machine = self._machine
        machine.pack(refuses_changes=machine.state() == ABSENT)
        num_silent = 0
        while True:
            status = None
            try:
                self._make_ready()
                status = self._advance()
                num_silent = 0
            except Unreachable as error:
                # It may be going away just now; its state will tell.
                num_silent += 1
                if num_silent >= _MAX_SILENT_POLLS:
                    raise
                print(f'{machine.name}: {error}', flush=True)
            if status is not None:
                return status
            time.sleep(self._options.poll_seconds)

    def _make_ready(self) -> None:
        """Creates the machine if it is absent, and anew if it was taken away."""
        machine, poll_seconds = self._machine, self._options.poll_seconds
        while True:
            state = machine.state()
            if state not in (READY, ABSENT):
                state = wait_until_settled(machine, poll_seconds)
            if state == READY:
                return
            if state != ABSENT:
                self._delete_taken(state)
            try:
                machine.create()
            except NoCapacity as error:
                print(f'{error} Trying again in {poll_seconds:g} s.', flush=True)
                time.sleep(poll_seconds)
            except UserError as error:
                if isinstance(error, Unreachable) or machine.state() == ABSENT:
                    raise
                print(f'{machine.name} was half made: {error}', flush=True)

    def _delete_taken(self, state: str) -> None:
        """Deletes a machine that was taken away; refuses any other, and any of somebody else's."""
        machine = self._machine
        if state not in TAKEN or not machine.is_ours():
            whose = '' if machine.is_ours() else ', and was not created by this program'
            raise UserError(
                f'{machine.name} in {machine.description.zone} is {state}{whose}; look after it '
                f'yourself, or choose another name.'
            )
        print(f'{machine.name}: {state}; making it anew', flush=True)
        machine.delete()

    def _advance(self) -> int | None:
        """Sets up and starts what is not running; the exit status if the run has ended."""
        machine = self._machine
        states = set(machine.progress())
        if states == {'finished'}:
            self._end()
            return 0
        if 'failed' in states:
            print(f'{machine.name}: the run has failed. The end of its log:', flush=True)
            machine.logs(self._options.num_log_lines, False)
            return 1
        # A start of all hosts that was cut in the middle leaves some stopped and some with nothing.
        if 'stopped' in states and not states & {'none', 'lost'}:
            print(f'{machine.name}: the run was stopped; run starts it again.')
            return 1
        if states & {'none', 'lost'}:
            self._start(has_running_hosts='running' in states)
        return None

    def _start(self, has_running_hosts: bool) -> None:
        machine = self._machine
        if has_running_hosts:
            # All hosts of a pod start together.
            machine.stop()
        if not machine.is_set_up():
            commit = machine.setup(self._options.bucket, self._options.corpus)
            print(f'{machine.name}: every host has commit {commit[:12]}', flush=True)
        machine.run(self._command)
        print(f'{machine.name}: started', flush=True)

    def _end(self) -> None:
        """Deletes the machine of a finished run, or says how to."""
        machine = self._machine
        print(f'{machine.name}: the run is finished.')
        if self._options.is_deleted_when_done:
            machine.delete()
            print(f'Deleted {machine.name}.')
            return
        print('The machine is still there, and costs; delete it with')
        print(
            f'  python -m launch.tpu_vm delete {machine.name} --zone={machine.description.zone} '
            f'--confirm={machine.name}'
        )
