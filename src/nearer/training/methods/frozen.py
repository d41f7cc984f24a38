"""Trains the upper layers of a transformer over the remembered outputs of the lower ones.

The lower layers are frozen, so that their outputs for a text never change: each distinct text goes
through them once, and what comes out is kept in memory, as numbers of two bytes, up to a bound.
Texts beyond the bound are computed each time.  The model itself stays whole: it is saved, judged and
used as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from nearer.embed.encoder import SentenceEncoder
from nearer.embed.loading import on_device
from nearer.errors import ConfigError

#: Bytes of lower outputs that are kept.
MOST_BYTES = 2 * 1024**3
#: The input of a batch that carries the lower layers' outputs.
_REMEMBERED = "lower_outputs"


def layers_of(model: Any) -> list[Any]:
    """The layers of a SentenceTransformer's transformer, lowest first.

    Raises ConfigError for a model that has none, or one transformer per kind of text.
    """
    step = "set train.method to full"
    transformer = model.transformers_model
    if transformer is None or type(model[0]).__name__ == "Router":
        raise ConfigError(
            "only a model with one transformer has lower layers to freeze",
            where="train.method",
            next_step=step,
        )
    layers = list_of_layers(transformer)
    if layers is None:
        raise ConfigError(
            "the layers of this model are not found", where="train.method", next_step=step
        )
    return list(layers)


def list_of_layers(transformer: Any) -> Any | None:
    """The module (a `torch.nn.ModuleList`) that holds a transformer's layers, lowest first; None: not found."""
    import torch

    count = getattr(transformer.config, "num_hidden_layers", None)
    for module in transformer.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    return None


@contextmanager
def upper_layers(encoder: SentenceEncoder, count: int) -> Iterator[None]:
    """While it lasts, only the top `count` layers of the encoder's model train, on remembered inputs.

    Raises ConfigError where the model has no more than `count` layers.
    """
    model = encoder.model
    layers = layers_of(model)
    if count >= len(layers):
        raise ConfigError(
            f"this model has {len(layers)} layers: top:{count} leaves none frozen",
            where="train.method",
            next_step=f"use top:{len(layers) - 1} or less, or full",
        )
    lower, upper = layers[:-count], layers[-count:]
    with ExitStack() as stack:
        stack.enter_context(_frozen(model, upper))
        remembered = LowerOutputs(encoder, lower)
        stack.enter_context(remembered.attached())
        yield


@contextmanager
def _frozen(model: Any, upper: Sequence[Any]) -> Iterator[None]:
    """Only what comes after the lower layers keeps its gradient.

    Other parts of the transformer (embeddings, position biases that all layers share) are frozen
    too: the remembered outputs depend on some of them.
    """
    transformer = model.transformers_model
    kept = {id(parameter) for layer in upper for parameter in layer.parameters()}
    frozen = []
    for parameter in transformer.parameters():
        if parameter.requires_grad and id(parameter) not in kept:
            parameter.requires_grad_(False)
            frozen.append(parameter)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


class _ReachedError(Exception):
    """Ends a pass after the last lower layer."""


class LowerOutputs:
    """What the lower layers give for each text, computed once.

    `kept_bytes` is what is held, `computed` how many texts went through the lower layers.
    """

    def __init__(
        self, encoder: SentenceEncoder, lower: Sequence[Any], most_bytes: int = MOST_BYTES
    ) -> None:
        import torch

        self._encoder, self._lower, self._most = encoder, lower, most_bytes
        bf16 = encoder.precision.name == "bf16"
        self._dtype = torch.bfloat16 if bf16 else torch.float16
        self._kept: dict[tuple[int | None, str, str], Any] = {}
        self._handed: Any = None  # the lower outputs of the batch that is being computed
        self._as_tuple = False  # whether layers of this architecture return tuples
        self.kept_bytes = 0
        self.computed = 0

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Give them to every batch of the encoder, and let the lower layers pass them on."""
        transformer = self._encoder.model[0]
        hooks = [
            transformer.register_forward_pre_hook(self._take),
            transformer.register_forward_hook(self._leave, always_call=True),
        ]
        undo = [self._wrap(layer) for layer in self._lower]
        self._encoder.prepare = self.features
        try:
            yield
        finally:
            self._encoder.prepare = None
            for restore in undo:
                restore()
            for hook in hooks:
                hook.remove()
            self._kept.clear()

    def features(
        self, texts: Sequence[str], kind: Any, inputs: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """The model's inputs with the lower outputs of their texts added."""
        import torch

        features = inputs()
        mask = features["attention_mask"].bool()
        length = self._encoder.model.max_seq_length
        keys = [(length, kind, text) for text in texts]
        missing = [row for row, key in enumerate(keys) if key not in self._kept]
        fresh: dict[int, Any] = {}
        if missing:
            outputs = self._compute(features, missing)
            for row, output in zip(missing, outputs, strict=True):
                fresh[row] = output[mask[row]]
                self._keep(keys[row], fresh[row])
        first = fresh[missing[0]] if missing else self._kept[keys[0]]
        lower = torch.zeros((*mask.shape, first.shape[-1]), dtype=self._dtype)
        for row, key in enumerate(keys):
            lower[row, mask[row]] = fresh[row] if row in fresh else self._kept[key]
        return {**features, _REMEMBERED: lower}

    def _keep(self, key: tuple[int | None, str, str], output: Any) -> None:
        size = output.numel() * output.element_size()
        if key not in self._kept and self.kept_bytes + size <= self._most:
            self._kept[key] = output.clone()
            self.kept_bytes += size

    def _compute(self, features: dict[str, Any], rows: list[int]) -> Any:
        """Outputs of the lower layers, (len(rows), length, width), on the CPU, without gradient."""
        import torch

        model = self._encoder.model
        part = {}
        for name, value in features.items():
            part[name] = value[rows] if hasattr(value, "shape") and value.dim() else value
        captured: list[Any] = []

        def capture(module: Any, inputs: Any, output: Any) -> None:
            self._as_tuple = isinstance(output, tuple)
            captured.append(output[0] if self._as_tuple else output)
            raise _ReachedError  # the upper layers are not needed

        bf16 = self._encoder.precision.name == "bf16"
        training = model.training
        model.eval()
        hook = self._lower[-1].register_forward_hook(capture)
        try:
            with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
                model[0](on_device(model, part))
        except _ReachedError:
            pass
        finally:
            hook.remove()
            model.train(training)
        self.computed += len(rows)
        return captured[0].to("cpu", self._dtype)

    # -- while a batch is computed ---------------------------------------------------------------

    def _take(self, module: Any, inputs: Any) -> Any:
        """Keep the lower outputs out of the transformer's own inputs."""
        features = dict(inputs[0])
        self._handed = features.pop(_REMEMBERED, None)
        return (features, *inputs[1:])

    def _leave(self, module: Any, inputs: Any, output: Any) -> None:
        self._handed = None

    def _wrap(self, layer: Any) -> Callable[[], None]:
        """Make a lower layer give the remembered outputs where a batch carries them."""
        own = vars(layer).get("forward")
        compute = layer.forward

        def forward(hidden: Any, *arguments: Any, **named: Any) -> Any:
            if self._handed is None:
                return compute(hidden, *arguments, **named)
            output = self._handed.to(hidden.device, hidden.dtype)
            return (output,) if self._as_tuple else output

        layer.forward = forward

        def restore() -> None:
            if own is None:
                del layer.forward
            else:
                layer.forward = own

        return restore
