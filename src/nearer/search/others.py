"""The other embedding models that are tried: which are here, and why the rest is not tried."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nearer import progress, shortlist
from nearer.embed.static_words import STATIC, static_model
from nearer.errors import DiskError, NearerError
from nearer.search.pipeline import Pipeline, short_name
from nearer.search.sparse import load_sparse

if TYPE_CHECKING:
    from nearer.search.multivector import MultiVectorModel
    from nearer.search.parts import Parts
    from nearer.search.sparse import SparseModel

_SAMPLE = 64  # documents whose encoding is timed
_COUNTED = 2000  # documents that say how frequent tokens are


@dataclass(frozen=True, slots=True)
class Untried:
    """A model that was not tried, why, and the setting that would try it, as `--set` takes it.

    `listed` are names of the shortlist, where one line stands for several.
    """

    model: str
    why: str
    setting: str
    listed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OtherModel:
    """A model that loads.  `automatic`: nobody named it."""

    name: str  # a folder or a name, as a pipeline takes it
    automatic: bool = False
    multilingual: bool = False


class OtherModels:
    """What `fix.models` gives: models that load, and those that are not tried.

    A model that fails later, such as an endpoint that is down, is moved to the others by `fail`: one
    model's failure ends nothing, and it is asked once.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._usable: list[OtherModel] = []
        self.untried: list[Untried] = []
        for name, automatic in self._named():
            self._try(name, automatic)
        if shortlist.AUTO in parts.config.fix.models:
            self._note_absent()

    @property
    def usable(self) -> tuple[OtherModel, ...]:
        return tuple(self._usable)

    @property
    def names(self) -> list[str]:
        return [model.name for model in self._usable]

    def fail(self, name: str, error: NearerError) -> None:
        """Note that a model cannot be tried after all."""
        self._usable = [model for model in self._usable if model.name != name]
        self._note(name, _reason(error))

    # -- which ---------------------------------------------------------------------------------

    def _named(self) -> Iterator[tuple[str, bool]]:
        """Each name once, and whether `auto` brings it; never the configured model."""
        seen = {self._parts.config.model.name}
        for name in self._parts.config.fix.models:
            automatic = name == shortlist.AUTO
            for one in self._automatic() if automatic else [name]:
                if one not in seen:
                    seen.add(one)
                    yield one, automatic

    def _automatic(self) -> list[str]:
        own = self._own_folder()
        carried = [folder for folder in shortlist.carried() if folder.resolve() != own]
        here = shortlist.names(shortlist.available(shortlist.encoders()))
        return [STATIC, *map(str, carried), *here]

    def _own_folder(self) -> Path | None:
        name = self._parts.config.model.name
        for folder in (Path(name).expanduser(), self._parts.root / name):
            if folder.is_dir():
                return folder.resolve()
        return None

    def _try(self, name: str, automatic: bool) -> None:
        """Load a model, and time it where nobody asked for it by name."""
        parts = self._parts
        try:
            if name == STATIC:
                name, automatic = self._static(), True
            elif automatic:
                seconds = self._seconds(name)
                most = parts.config.fix.budget
                if seconds > most:
                    self._note(
                        name,
                        f"embedding the corpus takes about {seconds:,.0f} s here, and fix.budget "
                        f"is {most:,.0f} s",
                    )
                    return
            parts.space_of(name)
            if self._is_configured(name):
                return
        except DiskError:
            raise
        except NearerError as error:
            self._note(name, _reason(error))
            return
        line = shortlist.listed(name)
        multilingual = line is not None and line.multilingual
        self._usable.append(OtherModel(name, automatic, multilingual))

    def _is_configured(self, name: str) -> bool:
        """Whether a model computes what the configured one does, under another name."""
        parts = self._parts
        if parts.reads_whole(name):
            return False
        return not parts.encoder_of(name).fingerprint.differences(parts.encoder.fingerprint)

    def _static(self) -> str:
        """The static model of the configured one, made below the cache; relative to the project where it lies inside."""
        parts = self._parts
        step = max(1, len(parts.corpus) // _COUNTED)
        texts = list(parts.corpus.contents(range(0, len(parts.corpus), step)))
        home = parts.once("home of static models", self._home)
        folder = static_model(parts.encoder, texts, Path(getattr(home, "name", home)))
        root = parts.root.resolve()
        if folder.resolve().is_relative_to(root):
            return str(folder.resolve().relative_to(root))
        return str(folder.resolve())

    def _home(self) -> object:
        """The folder of static models: in the cache, or one that goes with the systems."""
        if self._parts.cache is None:
            return tempfile.TemporaryDirectory(prefix="nearer-")
        return _Home(str(self._parts.cache / "static"))

    def _seconds(self, name: str) -> float:
        """Seconds that embedding the corpus with a model takes here, from a sample."""
        parts = self._parts
        late = parts.multi_vector(name)
        model: MultiVectorModel | SparseModel
        if late is not None:
            model = late.model
        elif parts.sparse(name) is not None:
            model = load_sparse(parts.config.model.of_another(name), parts.root)  # without a cache
        else:
            seconds = parts.embedding_seconds(Pipeline(model=name))
            return 0.0 if seconds is None else seconds
        step = max(1, len(parts.corpus) // _SAMPLE)
        rows = range(0, len(parts.corpus), step)[:_SAMPLE]
        texts = list(parts.corpus.contents(rows))
        started = time.perf_counter()
        model.encode(texts, "document")
        return (time.perf_counter() - started) * len(parts.corpus) / max(1, len(texts))

    # -- why not -------------------------------------------------------------------------------

    def _note(self, name: str, why: str) -> None:
        progress.info(f"the model {short_name(name)} is not tried: {why}")
        self.untried.append(Untried(name, f"{short_name(name)}: {why}", f"fix.models=[{name}]"))

    def _note_absent(self) -> None:
        """One line for the models of the shortlist that are not here."""
        here = set(shortlist.names(shortlist.available(shortlist.encoders())))
        here.add(self._parts.config.model.name)
        absent = [name for name in shortlist.names(shortlist.encoders()) if name not in here]
        if not absent:
            return
        why = f"a model of the shortlist is not here: {absent[0]}"
        if len(absent) > 1:
            why = f"{len(absent)} models of the shortlist are not here, such as {absent[0]}"
        setting = f"fix.models=[auto,{absent[0]}]"
        self.untried.append(Untried(absent[0], why, setting, tuple(absent)))


@dataclass(frozen=True, slots=True)
class _Home:
    name: str


def _reason(error: NearerError) -> str:
    return error.what if error.next_step is None else f"{error.what} ({error.next_step})"
