"""Items per second of a text encoder: batches of like lengths, as `athwe prepare` does, against one item a call.

    python examples/bench_encoder.py                            # a small BERT with random weights, made here
    python examples/bench_encoder.py --model bert-base-uncased  # any name or folder that --text-encoder takes

The published code of HM4SR and ATHWE encodes one item a call. Both ways run on the same texts (titles of the demo data) and
must give the same vectors.
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
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 4 * width}
    config = transformers.BertConfig(vocab_size=len(words), num_attention_heads=width // 64, **sizes)
    with quiet():
        transformers.BertModel(config).save_pretrained(folder)
        transformers.BertTokenizer(vocab=vocabulary, model_max_length=512).save_pretrained(folder)


def one_a_call(encoder: TextEncoder, texts: list[str]) -> tuple[np.ndarray, float]:
    """Vectors of the texts, one call each, and items per second."""
    began = time.perf_counter()
    vectors = [encoder.encode(encoder.tokenize([text])) for text in texts]
    return np.concatenate(vectors), len(texts) / (time.perf_counter() - began)


def batched(encoder: TextEncoder, texts: list[str], place: Path) -> tuple[np.ndarray, float]:
    """Vectors of the texts as `prepare` makes them, shards on disk included, and items per second."""
    began = time.perf_counter()
    vectors = encode_texts(texts, encoder, place=place).vectors
    return vectors, len(texts) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or folder of a model; default: a small one, made here")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--width", type=int, default=128, help="of the model made here, a multiple of 64")
    parser.add_argument("--layers", type=int, default=2, help="of the model made here")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    arguments = parser.parse_args()
    catalogue = generate(100, arguments.items, seed=0).records.items
    rows = zip(*(catalogue.frame[column] for column in ("title", "brand", "categories")), strict=True)
    texts = [f"{' '.join(row)} no {number}" for number, row in enumerate(rows)]  # all different: equal ones run once
    with tempfile.TemporaryDirectory() as folder:
        if arguments.model is None:
            make_model(Path(folder) / "small-bert", texts, arguments.width, arguments.layers)
        files = find_model(arguments.model or str(Path(folder) / "small-bert"), option="text_encoder")
        encoder = load_text_encoder(files, pooling="mean", max_tokens=512, precision=arguments.precision)
        one_a_call(encoder, texts[:20])  # warm up
        single, slow = one_a_call(encoder, texts)
        together, fast = batched(encoder, texts, Path(folder))
    facts = encoder.facts()
    print(f"{facts['id']} in {facts['precision']} on {encoder.encoder.device}, {len(texts):,} texts")
    print(f"one a call: {slow:8,.0f} items/s")
    print(f"batched:    {fast:8,.0f} items/s, {fast / slow:.1f} times as many")
    print(f"largest difference of the vectors: {np.abs(single - together).max():.2g}")


if __name__ == "__main__":
    main()
