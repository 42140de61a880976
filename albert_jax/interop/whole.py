"""Whether the files of a checkpoint are all there: half a copy of one is told before it is read.

Orbax reads many arrays at once. When one of them fails, the others go on in their threads, and each
writes a traceback of its own to standard error.
"""

import json
import re
from pathlib import Path

import tensorstore as ts

_TREE = '_METADATA'
# Of an item of arrays. Orbax does without the others where they are not there.
_JSON_FILES = (_TREE, '_sharding', 'array_metadatas/*')
_MANIFEST = 'manifest.ocdbt'
# In TensorStore's messages.
_NAMED_FILE = re.compile('local file "([^"]+)"')


def damage(checkpoint: Path, content: str, arrays: str) -> str:
    """What is missing or damaged, as 'params/_METADATA is not there'; empty if it is whole.

    Args:
      checkpoint: its folder, by its absolute path.
      content: the item of JSON.
      arrays: the item of arrays.
    """
    needed = [checkpoint / content / 'metadata']
    needed += [checkpoint / arrays / name for name in (_TREE, _MANIFEST)]
    for file in needed:
        if not file.is_file():
            return f'{file.relative_to(checkpoint)} is not there'
    others = [file for name in _JSON_FILES for file in sorted((checkpoint / arrays).glob(name))]
    for file in (needed[0], *others):
        if not _is_json(file):
            return f'{file.relative_to(checkpoint)} is cut off or changed'
    return damage_of_arrays(checkpoint, arrays)


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except ValueError:
        return False
    return True


def damage_of_arrays(checkpoint: Path, item: str) -> str:
    """What is missing or cut of an item's arrays, of which only the ends are read.

    Args:
      checkpoint: its folder, by its absolute path.
      item: its name.
    """
    base = {'driver': 'file', 'path': f'{checkpoint}/{item}/'}
    try:
        store = ts.KvStore.open({'driver': 'ocdbt', 'base': base}).result()
        keys = store.list().result()
    except ValueError as error:
        named = _NAMED_FILE.search(str(error))
        file = Path(named[1]).relative_to(checkpoint) if named else f'the list of arrays in {item}'
        return f'{file} is missing, cut off or changed'
    ends = {key: store.read(key, byte_range=slice(-1, None)) for key in keys}
    for key, end in ends.items():
        try:
            # No array is without bytes, but one whose file is not there is read so.
            is_there = bool(end.result().value)
        except ValueError:
            is_there = False
        if not is_there:
            array = key.decode().rpartition('/')[0].replace('.', '/')
            return f'the array {array} of {item} is missing or cut off'
    return ''
