"""Our own GPU servers, as long as they speak OpenAI's image endpoint: vLLM-Omni, SGLang-Diffusion and their like."""

from providers.selfhosted.adapter import Selfhosted, Settings, connect

__all__ = ["Selfhosted", "Settings", "connect"]
