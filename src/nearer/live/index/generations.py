"""Generations: immutable indexes made by one fingerprint, and the pointer to the one that answers.

    generations/
      ID/manifest.json   what it is made of, its state, what `verify` found
      ID/model/          the model that made it, so that a rollback can still encode queries
      ID/parts/          embedded documents (see build.py)
      ACTIVE             the generation that answers, the one to roll back to, and why
      ROLLOUT            the generation that is tried on live traffic, if any
      .project            the identity of this project, which its tables carry (ownership.py)
      history.jsonl      every change of state: who, when, why
      .readers/          which generations are being read, each note for some minutes (leases.py)

`ACTIVE` is the truth and moves by one rename.  History, the states in the manifests and the store's
own pointer follow it; what a kill leaves undone is finished by the next command that writes.

What is on disk is read by on_disk.py; opening.py opens it for queries; changing.py holds the locks;
cutover.py moves the pointer, where decision.py permits it; retention.py removes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nearer import progress
from nearer.embed.base import Encoder
from nearer.embed.fingerprint import Fingerprint
from nearer.files import write_json
from nearer.live.index.cutover import SwitchingGenerations
from nearer.live.index.manifest import Manifest, Pointer, Rollout
from nearer.live.index.on_disk import now
from nearer.live.index.opening import Generation, OpenedGenerations, for_chunks
from nearer.live.index.retention import RetainedGenerations

__all__ = ["Generation", "Generations", "Manifest", "Pointer", "Rollout", "for_chunks"]


class Generations(OpenedGenerations, SwitchingGenerations, RetainedGenerations):
    """All generations of one nearer.yaml, below `root/generations`."""

    def create(self, encoder: Encoder, name: str, *, today: bool, force: bool = False) -> Manifest:
        """The generation that this model fills under the present settings: the one there is, or a new one.

        `today` says that it is the configured model.  Call it inside `writing()`.  Raises
        FingerprintError when the model no longer behaves as when the generation was begun.
        """
        index = self.config.index
        fingerprint = replace(encoder.fingerprint, chunker=index.chunker)
        dimension = index.dimension or fingerprint.dimension
        known = self.manifests()
        if not force:
            begun = _begun(
                known, fingerprint, (fingerprint.id, index.dtype, dimension, index.store)
            )
            if begun is not None:
                return begun
        _warn_of_version_1(known, fingerprint)
        identity = self.identity()
        manifest = Manifest(
            self.free_id(fingerprint),
            "building",
            fingerprint,
            {"name": name, "today": today},
            index.dtype,
            dimension,
            index.store,
            now(),
            owner=identity.id if identity else "",
            namespace=self.namespace(),
        )
        self.require_own_place(manifest)
        fresh = self.folder / f".new-{manifest.id}"
        write_json(fresh / "manifest.json", manifest.as_dict())
        save = getattr(encoder, "save", None)
        if save:
            save(fresh / "model")
            # The copy must answer as the original does: better to learn it now than in hours.
            self.encoder(manifest, fresh)
        (fresh / "parts").mkdir()
        return self.add(fresh, manifest)


def _begun(
    known: Sequence[Manifest], fingerprint: Fingerprint, made_of: tuple[str, str, int, str]
) -> Manifest | None:
    """The newest generation that holds the same vectors; None where there is none.

    Raises FingerprintError where there are some, but the model behaves differently by now.
    """
    alike = [
        manifest
        for manifest in reversed(known)
        if manifest.made_of == made_of and manifest.state not in ("retired", "dropping")
    ]
    for manifest in alike:
        if manifest.fingerprint.same_space(fingerprint):
            return manifest
    if alike:
        mend = "use the machine that began it, or `nearer index build --force` for a new generation"
        alike[0].fingerprint.require(fingerprint, f"generation {alike[0].id}", mend)
    return None


def _warn_of_version_1(known: Sequence[Manifest], fingerprint: Fingerprint) -> None:
    for manifest in known:
        former = manifest.fingerprint.version < fingerprint.version
        if former and manifest.fingerprint.same_space(fingerprint):
            progress.warn(
                f"{manifest.id} holds this model under a fingerprint of version 1; a new generation begins"
                f"\n  → nearer index sync keeps {manifest.id} up to date meanwhile"
            )
