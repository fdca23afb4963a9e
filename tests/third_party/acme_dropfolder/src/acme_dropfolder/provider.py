"""Each message becomes a file, whole or not at all: written under another name, then renamed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from acme_dropfolder import Options
from mbframework import Batch, Context, Provider, ProviderUnusable, SendFailed


class DropFolder(Provider):
    """One lane's way into the folder."""

    def __init__(self, options: Options) -> None:
        self._folder = Path(options.path)
        self._suffix = options.suffix
        self._prefix = ""

    def open(self, context: Context) -> None:
        if not self._folder.is_dir():
            raise ProviderUnusable(f"{self._folder} is not a folder; make it, or correct the path", provider="drop")
        self._prefix = f"{context.buffer_id[:8]}-{context.lane}"

    def send(self, batch: Batch) -> None:
        draft = self._folder / f".{self._prefix}"
        for index, (value, sequence) in enumerate(zip(batch.values, batch.sequences, strict=True)):
            try:
                draft.write_bytes(value or b"")
                draft.rename(self._folder / f"{self._prefix}-{sequence:012}{self._suffix}")
            except OSError as error:
                left = range(index, len(batch))
                raise SendFailed(f"cannot write into the folder: {error}", undelivered=left, provider="drop") from error

    def describe(self) -> Mapping[str, str]:
        return {"folder": str(self._folder)}
