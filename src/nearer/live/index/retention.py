"""Removing generations that nobody needs, and dead chunks in the parts of the others."""

from __future__ import annotations

from dataclasses import replace

from nearer import progress
from nearer.files import write_json
from nearer.live.index.changing import ChangingGenerations
from nearer.live.index.leases import FOLDER as READERS
from nearer.live.index.leases import HeldError, holders
from nearer.live.index.manifest import Manifest
from nearer.live.index.parts import checksums, compact, outdated


class RetainedGenerations(ChangingGenerations):
    """What is kept, and for how long."""

    def drop(self, generation: str, *, who: str | None = None) -> None:
        """Remove a generation.  Raises StoreError for the active one and the one to roll back to."""
        with self.writing():
            self._drop(generation, who)

    def gc(self, *, who: str | None = None) -> tuple[list[str], int]:
        """Remove retired generations that no rollback needs, but for the last `index.keep`, and dead chunks in the parts of others.

        Those that a reader holds stay until it lets go.  Returns the ids, and how many chunks.
        """
        with self.writing():
            pointer = self.pointer()
            needed = {pointer.previous, *self.needed()}
            retired = []
            for manifest in self.manifests():
                if manifest.state == "retired" and manifest.id not in needed:
                    retired.append(manifest.id)
            gone = []
            for generation in retired[: max(0, len(retired) - self.config.index.keep)]:
                try:
                    self._drop(generation, who)
                    gone.append(generation)
                except HeldError as error:
                    progress.warn(f"{error.what}: it stays until a later nearer index gc")
            with self._moving():
                for stray in self.folder.rglob(".*.tmp"):
                    if stray.parent.name != READERS:
                        stray.unlink(missing_ok=True)
            return gone, sum(self._compact(manifest) for manifest in self.manifests())

    def _compact(self, manifest: Manifest) -> int:
        """Rewrite the parts that hold dead chunks, and their checksums."""
        folder = self.path(manifest.id) / "parts"
        names = outdated(folder, manifest.fingerprint)
        if not names:
            return 0
        # A kill must not leave rewritten parts beside the checksums of what they were.
        kept = {name: value for name, value in manifest.parts.items() if name not in names}
        self.update(manifest.id, parts=kept)
        removed = compact(folder, manifest.fingerprint, manifest.parts)
        self.update(manifest.id, parts=checksums(folder, manifest.fingerprint, kept))
        return removed

    def _drop(self, generation: str, who: str | None) -> None:
        with self._moving():
            manifest, pointer = self.manifest(generation), self.pointer()
            if generation in (pointer.id, pointer.previous):
                role = "active" if generation == pointer.id else "what a rollback needs"
                raise self._refusal(
                    f"{generation} is {role}", "cut over to another generation first"
                )
            if generation in self.needed():
                raise self._refusal(
                    f"a bridge answers from the table of {generation}",
                    "drop the bridge first: nearer index list",
                )
            path = self.path(generation) / "manifest.json"
            # A reader notes what it holds before it reads the manifest; so either it sees this
            # state and does not begin, or its note is seen here.
            write_json(path, replace(manifest, state="dropping").as_dict())
            notes = holders(self.folder, generation)
            if notes:
                write_json(path, manifest.as_dict())
                raise HeldError(
                    f"{generation} is held by {', '.join(map(str, notes))}",
                    where=str(self.folder),
                    next_step="stop that reader, or wait until its note ends",
                )
            self._append(self._entry("drop", None, generation, who))
        self._remove(manifest)
