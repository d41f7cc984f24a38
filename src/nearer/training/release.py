"""The model of a run as others get it: its folder, its card, and that both belong together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from nearer import config
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.errors import MissingStepError, ModelError
from nearer.files import disk_errors, files_below, read_json
from nearer.training.card import CARD, CardFacts, card

#: Files in which a library may have written where it found something.
_TEXTS = (".json", ".md", ".txt", ".yaml")


@dataclass(frozen=True, slots=True)
class Release:
    """A trained model with what its run knows about it; its files are never changed."""

    model: Path
    facts: CardFacts

    @classmethod
    def of(cls, settings: config.Config, root: Path, run_dir: Path) -> Release:
        """The model that `train` saved in a run.  Raises MissingStepError where there is none."""
        model = run_dir / "train" / "model"
        if not (model / "modules.json").is_file():
            raise MissingStepError(
                "there is no trained model", where=str(model), next_step="nearer train"
            )
        summary = read_json(run_dir / "train" / "summary.json")
        decided = run_dir / "decide" / "decision.json"
        decision = read_json(decided) if decided.is_file() else None
        return cls(model, CardFacts(settings, root, summary, decision))

    def encoder(self) -> SentenceEncoder:
        """The model in fp32, on the device of the settings."""
        settings = self.facts.settings.model.as_saved()
        settings = settings.model_copy(update={"name": str(self.model), "precision": "fp32"})
        return load_encoder(settings, self.facts.root, path=self.model)

    def card(self, encoder: SentenceEncoder) -> str:
        """The card with all that is known by now."""
        return card(self.facts, encoder)

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A copy of the model with its card of today; gone afterwards.

        Raises ModelError where a file names a path of this machine.
        """
        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            with disk_errors(folder):
                shutil.copytree(self.model, folder)
            (folder / CARD).write_text(self.card(self.encoder()), encoding="utf-8")
            self._require_no_paths(folder)
            yield folder

    def _require_no_paths(self, folder: Path) -> None:
        private = {str(self.facts.root), str(Path.home())} - {"/"}
        for path in files_below(folder):
            if path.suffix not in _TEXTS:
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            for name in private:
                if f"{name}/" in text:
                    raise ModelError(
                        f"the file names a folder of this machine, {name}",
                        where=str(self.model / path.relative_to(folder)),
                        next_step="take the path out of the file, then run the same command",
                    )
