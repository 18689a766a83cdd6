"""Images and sounds as input: what a person sends is decoded within limits, an encoder makes vectors of it, and the
decoder reads these in the place of tokens (Liu et al. 2023, LLaVA).

A folder of such a model is one in Hugging Face's layout with encoders.safetensors beside it; config.json says under
`crawltalk_encoders` what they read. Data to learn from is made on the spot.
"""

from crawltalk.multimodal.media import Media, load_engine
from crawltalk.multimodal.model import MultimodalModel, load_multimodal, save_multimodal

__all__ = ["Media", "MultimodalModel", "load_engine", "load_multimodal", "save_multimodal"]
