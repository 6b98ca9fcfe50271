"""The base of all specs: frozen settings that refuse unknown fields and numbers that are none."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Settings, valid once constructed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
