"""What a config.json says: the shape of a model, or the field that crawltalk does not compute.

A field that we compute has the meaning and the default that it has in `transformers`. A field that changes a
computation which we do not have is refused by its name. All others (dropout, dates, tokens for padding) change
nothing when a model answers.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.model.shape import LinearScaling, RopeScaling, Shape, YarnScaling
from crawltalk.recipe import Family
from crawltalk.tokenizer.files import read_object

Scaling = RopeScaling | LinearScaling | YarnScaling


@dataclass(frozen=True, kw_only=True)
class _Type:
    """A `model_type`: the family that computes it, and what `transformers` takes for absent fields."""

    family: Family
    context: int
    kv_heads: int | None = None
    """None: as many as heads."""
    head_dim: int | None = None
    """None: the width over the heads."""
    qkv_bias: bool = False


_TYPES = {
    "llama": _Type(family="llama", context=2048),
    "mistral": _Type(family="llama", context=131_072, kv_heads=8),
    "qwen2": _Type(family="llama", context=32_768, kv_heads=32, qkv_bias=True),
    "qwen3": _Type(family="qwen3", context=32_768, kv_heads=32, head_dim=128),
    "speedrun": _Type(family="speedrun", context=1024),
}
_NOT_COMPUTED = "crawltalk does not compute that"
_QUANTIZED = "crawltalk reads weights that are not quantised: take such a folder, or the model's GGUF file"
_REASONS = {
    "quantization_config": _QUANTIZED,
    "compression_config": _QUANTIZED,
    "auto_map": "the model is a program of its own, which crawltalk does not run",
}
_COMMON: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(_REASONS, ({},)),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "chunk_size_feed_forward": (0,),
    "num_experts": (0,),
    "num_local_experts": (0,),
    "n_routed_experts": (0,),
}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **_COMMON,
    "hidden_act": ("silu", "swish"),
    "hidden_activation": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "lm_head_bias": (False,),
    "use_bias": (False,),
    "partial_rotary_factor": (1,),
    "rotary_pct": (1,),
    "rope_interleaved": (False,),
    "rope_local_base_freq": (),
    "global_rope_theta": (),
    "local_rope_theta": (),
    "no_rope_layers": ([],),
    "no_rope_layer_interval": (0,),
    "nope_layer_interval": (0,),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "logits_soft_cap": (),
    "logit_cap": (),
    "logits_scaling": (1,),
    "logit_scale": (1,),
    "residual_multiplier": (1,),
    "embedding_multiplier": (1,),
    "scale_emb": (1,),
    "scale_depth": (1,),
    "attention_multiplier": (),
    "query_pre_attn_scalar": (),
    "attn_temperature_tuning": (False,),
    "clip_qkv": (),
    "use_qk_norm": (False,),
    "qk_layernorm": (False,),
    "qk_norm": (False,),
    "alibi": (False,),
    "parallel_attn": (False,),
    "use_parallel_residual": (False,),
    "hidden_size_per_layer_input": (0,),
    "num_kv_shared_layers": (0,),
    "attention_sink": (False,),
    "attention_chunk_size": (),
    "kv_lora_rank": (),
    "mrope_section": (),
}
"""Values, beside null, with which a field changes nothing."""
_NEUTRAL_GPT2: dict[str, tuple[Any, ...]] = {
    **_COMMON,
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False,),
}
_ROPE_FIELDS = {
    "default": (),
    "dynamic": ("factor",),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": (
        *("factor", "attention_factor", "beta_fast", "beta_slow"),
        *("mscale", "mscale_all_dim", "truncate"),
    ),
}
"""Of each type of rope_parameters, the fields beside those that all have."""
_ROPE_COMMON = (
    "type",
    "rope_type",
    "rope_theta",
    "partial_rotary_factor",
    "original_max_position_embeddings",
)
_WINDOW = 4096
"""The window of Mistral's and Qwen's models whose config.json names none."""
_HEADS = ("ForCausalLM", "LMHeadModel", "GPT2Model", "CrawltalkSpeedrun")
"""How the names of architectures end that give logits of the next token."""


def read_config(folder: str | Path) -> dict[str, Any]:
    """The config.json of a folder. Raises MissingInput, or BadInput for a damaged one."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise MissingInput(f"{folder} has no model (no config.json); make one with: crawltalk run small")
    return read_object(path)


def config_of(shape: Shape) -> dict[str, Any]:
    """A shape as Hugging Face's config.json."""
    if shape.family == "gpt2":
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": shape.vocab_size,
            "n_layer": shape.layers,
            "n_embd": shape.width,
            "n_head": shape.heads,
            "n_inner": shape.mlp,
            "n_positions": shape.context,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": shape.norm_eps,
            "tie_word_embeddings": shape.tie_embeddings,
        }
    kind = "qwen2" if shape.qkv_bias else shape.family
    architecture = {
        "qwen2": "Qwen2ForCausalLM",
        "qwen3": "Qwen3ForCausalLM",
        "llama": "LlamaForCausalLM",
        "speedrun": "CrawltalkSpeedrun",
    }[kind]
    return {
        "architectures": [architecture],
        "model_type": kind,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_scaling": _scaling_config(shape.rope_scaling),
        "tie_word_embeddings": shape.tie_embeddings,
        "attention_bias": False,
    }


_CLASSIFIER = "ForSequenceClassification"
"""How the names of architectures end that give a score for each label."""


def classifier_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config.json of a language model as that of a classifier with one label, the reward."""
    [name] = config["architectures"]
    stem = name.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    labels = {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    return config | {"architectures": [stem + _CLASSIFIER], **labels}


def shape_of_classifier(config: dict[str, Any], folder: str | Path) -> Shape:
    """The shape of a classifier with one label, which scores texts. Raises BadInput for another kind of model."""
    [name, *_] = config.get("architectures") or [""]
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)
    if not str(name).endswith(_CLASSIFIER) or count != 1:
        raise BadInput(
            f"{folder} is no reward model, a classifier with one label (config.json: architectures {name!r}, "
            f"{count} labels); make one with: crawltalk reward small --reward.data FILE"
        )
    return shape_of(config | {"architectures": None}, folder)


def shape_of(config: dict[str, Any], folder: str | Path) -> Shape:
    """The shape that a config.json describes. Raises BadInput for what crawltalk does not compute, by the
    field's name.
    """
    fields = _Fields(config, folder)
    kind = config.get("model_type")
    if kind == "gpt2":
        return _gpt2_shape(fields)
    if not isinstance(kind, str) or kind not in _TYPES:
        raise BadInput(
            f"{folder} is a model of type {kind!r}; crawltalk runs qwen3, qwen2, llama, mistral, gpt2 and its own "
            "speedrun"
        )
    form = _TYPES[kind]
    fields.refuse_all_but(_NEUTRAL)
    heads, width = fields.size("num_attention_heads"), fields.size("hidden_size")
    context = fields.size("max_position_embeddings", form.context)
    _check_windows(fields, kind, context)
    theta, scaling = _rope(fields, context)
    shape = Shape(
        family=form.family,
        vocab_size=fields.size("vocab_size"),
        layers=fields.size("num_hidden_layers"),
        width=width,
        heads=heads,
        kv_heads=fields.size("num_key_value_heads", form.kv_heads or heads),
        head_dim=fields.size("head_dim", form.head_dim or width // heads),
        mlp=fields.size("intermediate_size"),
        context=context,
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        qkv_bias=form.qkv_bias,
    )
    if shape.heads % shape.kv_heads:
        raise fields.refusal("num_key_value_heads", f"it must divide the {heads} heads")
    if shape.head_dim % 2:
        raise fields.refusal("head_dim", "rotary embeddings turn pairs")
    return shape


def _gpt2_shape(fields: "_Fields") -> Shape:
    fields.refuse_all_but(_NEUTRAL_GPT2)
    width, heads = fields.size("n_embd"), fields.size("n_head")
    return Shape(
        family="gpt2",
        vocab_size=fields.size("vocab_size"),
        layers=fields.size("n_layer"),
        width=width,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        mlp=fields.size("n_inner", 4 * width),
        context=fields.size("n_positions", fields.size("n_ctx", 1024)),
        norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        tie_embeddings=fields.flag("tie_word_embeddings", True),
    )


class _Fields:
    """The fields of a config.json; null counts as absent."""

    def __init__(self, config: dict[str, Any], folder: str | Path) -> None:
        self.config = {name: value for name, value in config.items() if value is not None}
        self.nulls = config.keys() - self.config.keys()
        self.folder = folder

    def refusal(self, name: str, reason: str = _NOT_COMPUTED) -> BadInput:
        return BadInput(f"{self.folder}: config.json says {name} = {_short(self.config.get(name))}; {reason}")

    def refuse_all_but(self, neutral: dict[str, tuple[Any, ...]]) -> None:
        """Raise BadInput for a field whose value changes a computation, and for a model without a head."""
        for name, values in neutral.items():
            if name in self.config and self.config[name] not in values:
                raise self.refusal(name, _REASONS.get(name, _NOT_COMPUTED))
        architectures = self.config.get("architectures") or [_HEADS[0]]
        if not str(architectures[0] if isinstance(architectures, list) else architectures).endswith(_HEADS):
            raise self.refusal("architectures", "crawltalk runs models that give the next token")

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number from 1 on."""
        value = self.config.get(name, default)
        if value is None:
            raise BadInput(f"{self.folder}: config.json has no {name}; copy the file again")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.refusal(name, "it must be a whole number from 1 on")
        return value

    def number(self, name: str, default: float) -> float:
        """A number above 0."""
        value = self.config.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise self.refusal(name, "it must be a number above 0")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.config.get(name, default)
        if not isinstance(value, bool):
            raise self.refusal(name, "it must be true or false")
        return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]} ..."


def _check_windows(fields: _Fields, kind: str, context: int) -> None:
    """Raise BadInput if a layer sees less than the whole context (Mistral's and Qwen's sliding windows)."""
    layers = fields.config.get("layer_types") or []
    if not isinstance(layers, list) or any(layer != "full_attention" for layer in layers):
        raise fields.refusal("layer_types")
    if kind in ("qwen2", "qwen3") and not (
        fields.flag("use_sliding_window", False)
        and fields.config.get("max_window_layers", 28) < fields.size("num_hidden_layers")
    ):
        return
    if "sliding_window" in fields.nulls or (kind == "llama" and "sliding_window" not in fields.config):
        return
    window = fields.size("sliding_window", _WINDOW)
    if window < context:
        raise BadInput(
            f"{fields.folder}: config.json says sliding_window = {window}, of a context of {context}; crawltalk "
            "computes attention to all positions, which is the same within the window: set "
            f"max_position_embeddings to {window}"
        )


def _rope(fields: _Fields, context: int) -> tuple[float, Scaling | None]:
    """The base of the rotary frequencies and how they are scaled. `rope_scaling` comes before
    `rope_parameters`, as `transformers` 5 calls it, and a base inside before one beside it.
    """
    name = "rope_scaling" if fields.config.get("rope_scaling") else "rope_parameters"
    given = fields.config.get(name) or {}
    if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
        raise fields.refusal(name, "crawltalk turns all layers alike")
    rope = _Fields(given, fields.folder)
    kind = rope.config.get("rope_type", rope.config.get("type", "default"))
    known = _ROPE_FIELDS.get(kind) if isinstance(kind, str) else None
    if known is None or any(field not in (*known, *_ROPE_COMMON) for field in rope.config):
        raise fields.refusal(name)
    if rope.config.get("partial_rotary_factor", 1) != 1:
        raise fields.refusal(name)
    theta = rope.number("rope_theta", fields.number("rope_theta", 10_000.0))
    original = fields.size(
        "original_max_position_embeddings", rope.size("original_max_position_embeddings", context)
    )
    return theta, _scaling(kind, rope, original, context)


def _scaling(kind: str, rope: _Fields, original: int, context: int) -> Scaling | None:
    if kind in ("default", "dynamic"):  # the latter begins to change behind the context
        return None
    if kind == "yarn":
        factor = rope.number("factor", context / original)
        return YarnScaling(
            factor=factor,
            original_context=original,
            fast_turns=rope.number("beta_fast", 32.0),
            slow_turns=rope.number("beta_slow", 1.0),
            whole=rope.flag("truncate", True),
            magnitude=rope.number("attention_factor", _yarn_magnitude(rope, factor)),
        )
    missing = [field for field in _ROPE_FIELDS[kind] if field not in rope.config]
    if missing:
        raise BadInput(
            f"{rope.folder}: config.json scales its rotary embedding ({kind}) without {missing[0]}"
        )
    factor = rope.number("factor", 1.0)
    if kind == "linear":
        return LinearScaling(factor=factor)
    return RopeScaling(
        factor=factor,
        low_freq_factor=rope.number("low_freq_factor", 1.0),
        high_freq_factor=rope.number("high_freq_factor", 4.0),
        original_context=original,
    )


def _yarn_magnitude(rope: _Fields, factor: float) -> float:
    """The length of queries and keys that the paper suggests (equation 22), and DeepSeek's ratio of two."""

    def length(scale: float = 1.0) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    above, below = rope.config.get("mscale"), rope.config.get("mscale_all_dim")
    if not above or not below:
        return length()
    return length(rope.number("mscale", 1.0)) / length(rope.number("mscale_all_dim", 1.0))


def _scaling_config(scaling: Scaling | None) -> dict[str, Any] | None:
    match scaling:
        case RopeScaling():
            return {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_context,
            }
        case LinearScaling():
            return {"rope_type": "linear", "factor": scaling.factor}
        case YarnScaling():
            return {
                "rope_type": "yarn",
                "factor": scaling.factor,
                "original_max_position_embeddings": scaling.original_context,
                "beta_fast": scaling.fast_turns,
                "beta_slow": scaling.slow_turns,
                "truncate": scaling.whole,
                "attention_factor": scaling.magnitude,
            }
    return None
