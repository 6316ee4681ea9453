"""Makes a passage index of another model from one that is there: its texts stay, its vectors are computed again.

Nothing is read from the folders, so they need not be there, and what the index answers from is what it answered from
before. Each batch is saved as soon as it is done: after a kill, the next call embeds the rest. The old index is only
read.
"""

from collections.abc import Iterator
from typing import NamedTuple

from gte_sdk.embedding.embedder import Embedder
from gte_sdk.passages.store import FilePassages, PassageStore
from gte_sdk.passages.updating import Progress, embed_group, hash_of, in_groups

# What an index says of its last update. "complete" comes last: until then, the new index is not whole.
_KEPT = ("left_out", "complete")


class Reembedded(NamedTuple):
    """What a call embedded. The vectors of other passages were there from an interrupted one."""

    embedded: int
    was_cut: bool
    """Whether one of the texts is longer than the model reads."""


def reembed_index(old: PassageStore, new: PassageStore, embedder: Embedder, progress: Progress) -> Reembedded:
    """Brings `new` to the files and passages of `old`, with vectors of its own model.

    Args:
        old: The index whose texts are taken. Nobody may change it meanwhile.
        new: The index to fill: an empty one, or what an interrupted call left. Files that `old` does not have leave it.
        embedder: The model of `new`.
        progress: As of `update_index`.

    Raises:
        ModelMismatchError: The embedder is not of the new index's model.
        IndexFormatError: The old index is damaged.
    """
    new.check_fingerprint(embedder.fingerprint)
    files = old.files()
    new.set_meta({"complete": "false"})
    split_by = old.meta("split_by") or ""
    if new.meta("split_by") != split_by:  # passages that another version cut may differ although the file is the same
        new.remove_files(new.files())
        new.set_meta({"split_by": split_by})
    kept = new.files()
    missing = [path for path, state in files.items() if kept.get(path) != state]
    embedded = done = 0
    was_cut = False
    progress(0, len(files))

    def read() -> Iterator[FilePassages]:
        for path in missing:
            yield FilePassages(path, files[path], [(part, hash_of(part)) for part in old.passages_of_file(path)])

    before = len(files) - len(missing)
    for group in in_groups(read()):

        def batch_done(share: float, done: int = before + done, count: int = len(group)) -> None:
            progress(done + int(count * share), len(files))

        count, cut = embed_group(new, embedder, group, batch_done)
        embedded += count
        was_cut |= cut
        new.put_files(group)
        done += len(group)
        progress(before + done, len(files))
    new.remove_files(new.files().keys() - files.keys())
    new.remove_unused_vectors()
    new.set_meta({key: value for key in _KEPT if (value := old.meta(key)) is not None})
    progress(len(files), len(files))
    return Reembedded(embedded, was_cut)
