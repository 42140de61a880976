"""Members of a sweep whose stages are runs of tests/fake_run.py."""

from configs.changes import Change
from launch.stages import Member, Stage


def stage(member: str, name: str, *needs: str, **settings) -> Stage:
    return Stage(member, name, 'tests.fake_run', 'f.py:x', settings, needs, 5)


def members(*names: str) -> list[Member]:
    return [
        Member(
            Change(name),
            (stage(name, 'pretrain'), stage(name, 'sst2', f'{name}/pretrain')),
            None,
        )
        for name in names
    ]
