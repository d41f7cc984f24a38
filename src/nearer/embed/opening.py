"""From `model.name` to the encoder: a model here, or one that is computed elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nearer import config
from nearer.embed.adapter import with_saved_adapter
from nearer.embed.base import EncoderSpec, Kind, TextEncoder, folder_of
from nearer.embed.encoder import load_encoder
from nearer.embed.outside import load_outside


def open_encoder(
    settings: config.Model,
    root: Path,
    *,
    cache: Path | None = None,
    path: Path | None = None,
    name: str | None = None,
    kept_kinds: Sequence[Kind] = ("query", "document"),
) -> TextEncoder:
    """The encoder of a config's model section, or of the folder `path` with the same settings.

    `kept_kinds`: the kinds of text that an encoder outside keeps vectors of.  Raises ModelError and
    ConfigError with what to do.
    """
    spec = EncoderSpec.of(settings, root, path)
    encoder: TextEncoder
    if spec.has_weights:
        encoder = load_encoder(settings, root, cache=cache, path=path, name=name)
    else:
        encoder = load_outside(spec, cache=cache, name=name, kept_kinds=kept_kinds)
    folder = path or folder_of(settings.name, root)
    return encoder if folder is None else with_saved_adapter(encoder, folder)
