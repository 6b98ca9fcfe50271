"""The two ways in which a user's input can fail: it is wrong, or a refinement of it does not converge."""

from __future__ import annotations

from pathlib import Path, PurePath


class InputError(ValueError):
    """Bad input, told in one line that names file, field, value and what is allowed."""

    def __init__(
        self,
        what: str,
        *,
        file: str | Path | None = None,
        field: str | None = None,
        value: object = None,
        allowed: str | None = None,
    ) -> None:
        head = ", ".join(
            part for part in (None if file is None else str(file), field and f"field '{field}'") if part
        )
        text = f"{head}: {what}" if head else what
        if value is not None:
            text += f" (got '{value}')" if isinstance(value, str | PurePath) else f" (got {value!r})"
        if allowed is not None:
            text += f"; allowed: {allowed}"
        super().__init__(" ".join(text.split()))


class ConvergenceError(RuntimeError):
    """A refinement that did not converge; the message says what to try."""


class RunawayThicknessError(ConvergenceError):
    """The thickness of the crystal left the range in which it was sought."""
