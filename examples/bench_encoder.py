"""Measure a text encoder in items per second: batches of similar lengths, as in `athwe prepare`, against one item per call.

    python examples/bench_encoder.py                            # a small BERT with random weights
    python examples/bench_encoder.py --model bert-base-uncased  # any name or folder that --text-encoder accepts

The published code of HM4SR and ATHWE encodes one item per call. Both ways encode the same texts, titles of the demo data
set, and must give the same vectors.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import transformers

from athwe_core.data.demo.generate import generate
from athwe_core.data.features.encode_text import TextEncoder, encode_texts, load_text_encoder
from athwe_core.data.features.encoders import find_model, quiet


def make_model(folder: Path, texts: list[str], width: int, layers: int) -> None:
    """Save a BERT with random weights and a vocabulary of the words in `texts`."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({w for text in texts for w in text.lower().split()})]
    vocabulary = {word: number for number, word in enumerate(words)}
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
    )
    with quiet():
        transformers.BertModel(config).save_pretrained(folder)
        transformers.BertTokenizer(vocab=vocabulary, model_max_length=512).save_pretrained(folder)


def encode_singly(encoder: TextEncoder, texts: list[str]) -> tuple[np.ndarray, float]:
    """Encode one text per call; return the vectors and the items per second."""
    began = time.perf_counter()
    vectors = [encoder.encode(encoder.tokenize([text])) for text in texts]
    return np.concatenate(vectors), len(texts) / (time.perf_counter() - began)


def encode_batched(encoder: TextEncoder, texts: list[str], place: Path) -> tuple[np.ndarray, float]:
    """Encode as `athwe prepare` does, partial results on disk included; return the vectors and the items per second."""
    began = time.perf_counter()
    vectors = encode_texts(texts, encoder, place=place).vectors
    return vectors, len(texts) / (time.perf_counter() - began)


def main() -> None:
    """Parse the arguments, encode both ways and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or folder of a model; default: a small one with random weights")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--width", type=int, default=128, help="of the small model, a multiple of 64")
    parser.add_argument("--layers", type=int, default=2, help="of the small model")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    arguments = parser.parse_args()
    catalogue = generate(100, arguments.items, seed=0).records.items
    assert catalogue is not None  # the demo data set always has item metadata
    rows = zip(*(catalogue.frame[column] for column in ("title", "brand", "categories")), strict=True)
    texts = [
        f"{' '.join(row)} no {number}" for number, row in enumerate(rows)
    ]  # all different, because equal texts are encoded once
    with tempfile.TemporaryDirectory() as folder:
        if arguments.model is None:
            make_model(Path(folder) / "small-bert", texts, arguments.width, arguments.layers)
        files = find_model(arguments.model or str(Path(folder) / "small-bert"), option="text_encoder")
        encoder = load_text_encoder(files, pooling="mean", max_tokens=512, precision=arguments.precision)
        encode_singly(encoder, texts[:20])  # warm up
        single, slow = encode_singly(encoder, texts)
        together, fast = encode_batched(encoder, texts, Path(folder))
    facts = encoder.facts()
    print(f"{facts['id']} in {facts['precision']} on {encoder.encoder.device}, {len(texts):,} texts")
    print(f"one per call: {slow:8,.0f} items/s")
    print(f"batched:      {fast:8,.0f} items/s, {fast / slow:.1f} times as many")
    print(f"largest difference between the vectors: {np.abs(single - together).max():.2g}")


if __name__ == "__main__":
    main()
