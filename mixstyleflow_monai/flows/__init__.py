"""Normalizing flows over channel statistics: couplings, activation normalisation, one density, and the bank of all."""

from __future__ import annotations

from mixstyleflow_monai.flows.act_norm import StyleActNorm
from mixstyleflow_monai.flows.coupling import MaskedAffineCoupling
from mixstyleflow_monai.flows.style_flow import StyleFlow
from mixstyleflow_monai.flows.style_flow_bank import StyleFlowBank

__all__ = ["MaskedAffineCoupling", "StyleActNorm", "StyleFlow", "StyleFlowBank"]
