"""Which number format a model computes in here: bf16 where the hardware has it, and it is faithful."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from nearer.errors import ConfigError

#: Mean cosine between bf16 and fp32 vectors of the same texts, from which bf16 is used.
MIN_FIDELITY = 0.9999

#: Environment variable that answers "does this machine have bf16 units?" (`yes` or `no`) in place
#: of the hardware: to reproduce another machine's results, and to test both kinds on any machine.
BF16_OVERRIDE = "NEARER_BF16"


@dataclass(frozen=True, slots=True)
class Precision:
    """The number format chosen for a model on this machine, and why."""

    name: str
    reason: str
    fidelity: float | None = None


def choose_precision(
    setting: str,
    device: str,
    fidelity: Callable[[], float],
    least: float = MIN_FIDELITY,
    what: str = "mean cosine",
) -> Precision:
    """bf16 where the hardware computes in it and the results stay faithful, fp32 otherwise.

    `fidelity()` compares bf16 with fp32 results and is called only when it matters; bf16 is taken
    from `least` on.  A CPU without bf16 units emulates them (measured: six times slower than fp32),
    so the hardware is asked first.
    """
    if setting == "fp32":
        return Precision("fp32", "asked for")
    if setting == "bf16":
        return Precision("bf16", "asked for", fidelity())
    if not hardware_has_bf16(device):
        return Precision("fp32", f"this {device} has no bf16 units")
    measured = fidelity()
    faithful = measured >= least  # False also where it is not a number
    if not faithful:
        return Precision("fp32", f"bf16 is not faithful here ({what} {measured:.5f})", measured)
    return Precision("bf16", f"bf16 is faithful ({what} {measured:.5f})", measured)


def hardware_has_bf16(device: str) -> bool:
    """Whether `device` (`cpu`, `cuda`, …) computes in bf16, unless NEARER_BF16 answers instead.

    Raises ConfigError for another value of that variable than `yes` or `no`.
    """
    forced = os.environ.get(BF16_OVERRIDE, "")
    if forced:
        if forced not in ("yes", "no"):
            raise ConfigError(
                f"{forced!r} is neither yes nor no",
                where=f"environment variable {BF16_OVERRIDE}",
                next_step=f"unset {BF16_OVERRIDE}, or set it to yes or no",
            )
        return forced == "yes"
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    # Both are private in torch: where one is absent, that counts as no.
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        supported = getattr(torch.cpu, name, None)
        if supported is not None and supported():
            return True
    return False
