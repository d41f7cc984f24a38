"""Saves a trained model so that it loads anywhere, and proves that nothing got lost on the way."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from nearer import config
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.errors import ModelError
from nearer.files import disk_errors


def save_model(encoder: SentenceEncoder, folder: Path, settings: config.Model, root: Path) -> str:
    """Save so that `SentenceTransformer(folder)` gives the same vectors, and prove it.

    Returns the fingerprint of the saved model.  Raises ModelError when anything got lost on the way
    (weights, tokenizer, pooling, normalisation, prompts, maximum length).
    """
    model = encoder.model
    if settings.query_prompt is not None or settings.document_prompt is not None:
        prompts = {"query": encoder.prompt("query"), "document": encoder.prompt("document")}
        model.prompts = {**(model.prompts or {}), **prompts}
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_errors(temporary):
        model.save(str(temporary), create_model_card=False, safe_serialization=True)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    now = SentenceEncoder(
        model,
        query_prompt=encoder.prompt("query"),
        document_prompt=encoder.prompt("document"),
        precision="fp32",
        name="the model in memory",
    )
    saved = load_encoder(
        config.Model(name=str(folder), precision="fp32", device=settings.device), root, path=folder
    )
    differences = now.fingerprint.differences(saved.fingerprint)
    if differences:
        raise ModelError(
            f"the saved model is not the trained one: {'; '.join(differences)}",
            where=str(folder),
            next_step="please report this",
        )
    return replace(saved.fingerprint, precision=encoder.precision.name).id
