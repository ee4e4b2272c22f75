"""transformers, in small configurations: their operations, with fewer layers and channels."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from splitpoint.partition.models.torchvision import declare_detection_operators
from torch import Tensor
from zoo_subject import Given, Subject, given, known, pixels

WORDS, LENGTH = 1000, 24
WIDTH = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
         "intermediate_size": 128}  # fmt: skip


def built(kind: str, config: str, **options: Any) -> torch.nn.Module:
    """A model with random weights of this configuration."""
    declare_detection_operators()
    library: Any = importlib.import_module("transformers")
    library.logging.set_verbosity_error()
    found: torch.nn.Module = getattr(library, kind)(getattr(library, config)(**options))
    return found.eval()


def tokens(length: int = LENGTH) -> Tensor:
    return torch.randint(5, WORDS, (3, length))


def mask(*lengths: int) -> Tensor:
    """1 for words and 0 for padding."""
    return (torch.arange(LENGTH) < torch.tensor(lengths)[:, None]).long()


def resnet() -> Any:
    """The configuration of a backbone."""
    return importlib.import_module("transformers").RTDetrResNetConfig(
        embedding_size=32, hidden_sizes=[32, 48, 64, 96], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip


def detr() -> Given:
    declare_detection_operators()
    library: Any = importlib.import_module("transformers")
    backbone = library.ResNetConfig(
        embedding_size=16, hidden_sizes=[32, 48, 64, 96], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage4"],
    )  # fmt: skip
    return known(
        built("DetrForObjectDetection", "DetrConfig", backbone_config=backbone, d_model=64,
              encoder_layers=2, decoder_layers=2, encoder_ffn_dim=128, decoder_ffn_dim=128,
              encoder_attention_heads=4, decoder_attention_heads=4, num_queries=30),
        224,
    )  # fmt: skip


def rtdetr() -> Given:
    declare_detection_operators()
    return known(
        built("RTDetrForObjectDetection", "RTDetrConfig", backbone_config=resnet(),
              encoder_in_channels=[48, 64, 96],
              encoder_hidden_dim=64, d_model=64, decoder_in_channels=[64, 64, 64],
              encoder_ffn_dim=128, decoder_ffn_dim=128, decoder_layers=2, num_queries=50,
              encoder_attention_heads=4, decoder_attention_heads=4), 256)  # fmt: skip


def yolos() -> Given:
    return known(built("YolosForObjectDetection", "YolosConfig", image_size=(224, 224),
                       num_detection_tokens=20, **WIDTH), 224)  # fmt: skip


def segformer() -> Given:
    return known(
        built("SegformerForSemanticSegmentation", "SegformerConfig", depths=(1, 1, 1, 1),
              hidden_sizes=(16, 32, 48, 64), num_attention_heads=(1, 2, 3, 4),
              decoder_hidden_size=64, num_labels=19), 224)  # fmt: skip


def clip() -> torch.nn.Module:
    part = {**WIDTH, "projection_dim": 32}
    return built(
        "CLIPModel", "CLIPConfig", projection_dim=32,
        text_config={**part, "vocab_size": WORDS, "max_position_embeddings": LENGTH,
                     "eos_token_id": 2, "bos_token_id": 1},
        vision_config={**part, "image_size": 64, "patch_size": 16},
    )  # fmt: skip


def gpt2(**options: Any) -> torch.nn.Module:
    return built("GPT2LMHeadModel", "GPT2Config", vocab_size=WORDS, n_positions=64, n_embd=64,
                 n_layer=3, n_head=4, **options)  # fmt: skip


class Logits(torch.nn.Module):
    """What a refusal of a cache says to do: a module around it that returns the logits alone."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        logits: Tensor = found.logits
        return logits


class Encoder(torch.nn.Module):
    """The encoder of a model with two halves."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.get_encoder()

    def forward(self, given: Tensor) -> Tensor:
        found: Tensor = self.encoder(given).last_hidden_state
        return found


def whisper() -> torch.nn.Module:
    return built("WhisperModel", "WhisperConfig", d_model=64, encoder_layers=2, decoder_layers=2,
                 encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128,
                 decoder_ffn_dim=128, vocab_size=WORDS, max_source_positions=200,
                 pad_token_id=0, bos_token_id=1, eos_token_id=2,
                 decoder_start_token_id=1)  # fmt: skip


def wav2vec2(kind: str = "Wav2Vec2ForCTC") -> torch.nn.Module:
    return built(kind, "Wav2Vec2Config", conv_dim=(32,) * 7, vocab_size=32,
                 num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, **WIDTH)  # fmt: skip


BERT = {"vocab_size": WORDS, "max_position_embeddings": 64, **WIDTH}

TRANSFORMERS = [
    Subject("DETR", lambda _: detr()),
    Subject("YOLOS", lambda _: yolos()),
    Subject("RT-DETR", lambda _: rtdetr()),
    Subject("SegFormer", lambda _: segformer(), quick=True),
    Subject("ViT", lambda _: known(
        built("ViTForImageClassification", "ViTConfig", **WIDTH), 224)),
    Subject("DPT, of depth", lambda _: given(
        built("DPTForDepthEstimation", "DPTConfig", image_size=64, patch_size=16,
              neck_hidden_sizes=(16, 24, 32, 48), fusion_hidden_size=16,
              backbone_out_indices=(0, 1, 2, 3), **WIDTH | {"num_hidden_layers": 4}), pixels(64))),
    Subject("BERT with masks", lambda _: given(
        built("BertModel", "BertConfig", **BERT), input_ids=tokens(),
        attention_mask=mask(24, 17, 9), token_type_ids=(tokens() > 500).long()), quick=True),
    Subject("DistilBERT, of questions", lambda _: given(
        built("DistilBertForQuestionAnswering", "DistilBertConfig", vocab_size=WORDS, dim=64,
              n_layers=2, n_heads=4, hidden_dim=128, max_position_embeddings=64),
        input_ids=tokens(), attention_mask=mask(24, 17, 9))),
    Subject("RoBERTa", lambda _: given(
        built("RobertaForSequenceClassification", "RobertaConfig", **BERT, num_labels=4),
        input_ids=tokens(), attention_mask=mask(24, 17, 9))),
    Subject("T5's encoder", lambda _: given(
        Encoder(built("T5Model", "T5Config", vocab_size=WORDS, d_model=64, d_kv=16, d_ff=128,
                      num_layers=2, num_heads=4)), tokens())),
    Subject("GPT-2 as it is", lambda _: given(gpt2(), input_ids=tokens()),
            refused="returns a cache.*use_cache"),
    Subject("GPT-2 without a cache", lambda _: given(
        gpt2(), input_ids=tokens(), use_cache=False)),
    Subject("GPT-2 in a wrapper", lambda _: given(Logits(gpt2()), tokens(), mask(24, 24, 24))),
    Subject("Llama in a wrapper", lambda _: given(
        Logits(built("LlamaForCausalLM", "LlamaConfig", vocab_size=WORDS,
                     num_key_value_heads=2, max_position_embeddings=64, **WIDTH)),
        tokens(), mask(24, 24, 24))),
    Subject("CLIP as it is", lambda _: given(
        clip(), input_ids=tokens(), pixel_values=pixels(64), attention_mask=mask(24, 17, 9)),
        refused="logits_per_image|logits_per_text"),
    Subject("CLIP's pictures", lambda _: given(
        built("CLIPVisionModelWithProjection", "CLIPVisionConfig", **WIDTH, image_size=64,
              patch_size=16, projection_dim=32), pixels(64))),
    Subject("wav2vec 2.0", lambda _: given(wav2vec2(), torch.randn(3, 4000))),
    Subject("Whisper's encoder", lambda _: given(Encoder(whisper()), torch.randn(3, 80, 400))),
    Subject("Whisper as it is", lambda _: given(
        whisper(), input_features=torch.randn(3, 80, 400), decoder_input_ids=tokens(6)),
        refused="returns a cache.*use_cache"),
    Subject("audio spectrogram transformer", lambda _: given(
        built("ASTForAudioClassification", "ASTConfig", max_length=128, num_mel_bins=64,
              **WIDTH), torch.randn(3, 128, 64))),
    Subject("PatchTST, of series", lambda _: given(
        built("PatchTSTForPrediction", "PatchTSTConfig", num_input_channels=3, context_length=96,
              patch_length=8, stride=8, prediction_length=12, d_model=32, ffn_dim=64,
              num_hidden_layers=2, num_attention_heads=4),
        past_values=torch.randn(3, 96, 3))),
]  # fmt: skip
