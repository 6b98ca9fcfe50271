"""The base of all specs: frozen settings that refuse unknown fields and numbers that are none."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Laue = Literal["-1", "2/m", "mmm", "4/m", "4/mmm", "-3", "-3m", "6/m", "6/mmm", "m-3", "m-3m"]


class Part(BaseModel):
    """Settings, valid once constructed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
