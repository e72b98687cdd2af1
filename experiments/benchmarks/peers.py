"""What one would try instead of jaxclf: linear models, and Hugging Face Trainer with a tuned rate.

Each function returns the probabilities of val and test, not calibrated. It needs the extra [parity].
"""  # noqa: E501

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from jaxclf.decisions.selection import calibrated_log_loss

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # scikit-learn's C
RATES = (2e-5, 5e-5, 1e-4, 2e-4)
EPOCHS, BATCH_SIZE = 5, 32


class Split(NamedTuple):
    """texts, and float32 labels [texts, classes]."""

    ids: Sequence[str]
    texts: Sequence[str]
    labels: np.ndarray


Splits = Mapping[str, Split]  # train, val, test
Probs = dict[str, np.ndarray]  # val, test


def tfidf(splits: Splits, encoder: str, seed: int) -> Probs:
    """Logistic regression on TF-IDF of words and pairs of words."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    vectorizer.fit(splits["train"].texts)
    return fit_linear(
        {name: vectorizer.transform(part.texts) for name, part in splits.items()}, splits
    )


def frozen(splits: Splits, encoder: str, seed: int) -> Probs:
    """Logistic regression on the mean of the encoder's last hidden states, of length 1."""
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder)
    model.eval()

    def embed(texts: Sequence[str]) -> np.ndarray:
        vectors = []
        for start in range(0, len(texts), BATCH_SIZE):
            chunk = list(texts[start : start + BATCH_SIZE])
            batch = tokenizer(
                chunk, padding=True, truncation=True, max_length=512, return_tensors="pt"
            )
            with torch.no_grad():
                hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            mean = (hidden * mask).sum(1) / mask.sum(1)
            vectors.append(torch.nn.functional.normalize(mean).numpy())
        return np.concatenate(vectors)

    return fit_linear({name: embed(part.texts) for name, part in splits.items()}, splits)


def fit_linear(features: Mapping[str, Any], splits: Splits) -> Probs:
    """Logistic regression for each label; C has the lowest calibrated log loss on val."""
    best, lowest = None, np.inf
    for strength in STRENGTHS:
        columns = [
            _fit_label(features, splits["train"].labels[:, label], strength)
            for label in range(splits["train"].labels.shape[1])
        ]
        probs = {name: np.stack([c[name] for c in columns], axis=1) for name in ("val", "test")}
        loss = calibrated_log_loss(splits["val"].labels, probs["val"])
        if loss < lowest:
            best, lowest = probs, loss
    assert best is not None
    return best


def _fit_label(features: Mapping[str, Any], labels: np.ndarray, strength: float) -> Probs:
    if not 0 < labels.sum() < len(labels):
        share = (labels.sum() + 1) / (len(labels) + 2)
        return {name: np.full(features[name].shape[0], share) for name in ("val", "test")}
    model = LogisticRegression(C=strength, max_iter=1000).fit(features["train"], labels)
    return {name: model.predict_proba(features[name])[:, 1] for name in ("val", "test")}


def tuned_trainer(splits: Splits, encoder: str, seed: int, folder: Path) -> Probs:
    """Hugging Face Trainer at the rate of RATES with the lowest calibrated log loss on val.

    Seed 0 chooses the rate, which is kept in `folder` beside the losses of all rates.
    """
    chosen = folder / "rate.txt"
    if chosen.is_file():
        return train(splits, encoder, seed, float(chosen.read_text().split()[0]))[0]
    if seed:
        raise SystemExit(f"{chosen}: no such file; seed 0 chooses the rate")
    trained = {rate: train(splits, encoder, seed, rate) for rate in RATES}
    best = min(trained, key=lambda rate: trained[rate][1])
    folder.mkdir(parents=True, exist_ok=True)
    losses = "".join(f"{rate} {loss:.4f}\n" for rate, (_, loss) in trained.items())
    chosen.write_text(f"{best}\n{losses}")
    return trained[best][0]


def train(splits: Splits, encoder: str, seed: int, rate: float) -> tuple[Probs, float]:
    """(probabilities, calibrated log loss on val) of the best of EPOCHS epochs."""
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    classes = splits["train"].labels.shape[1]
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=classes, problem_type="multi_label_classification"
    )
    data = {name: _encode(part, tokenizer) for name, part in splits.items()}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=EPOCHS,
                per_device_train_batch_size=BATCH_SIZE,
                per_device_eval_batch_size=BATCH_SIZE,
                learning_rate=rate,
                seed=seed,
                eval_strategy="epoch",
                save_strategy="best",
                save_only_model=True,
                save_total_limit=1,
                load_best_model_at_end=True,
                metric_for_best_model="eval_calibrated",
                greater_is_better=False,
                report_to=[],
                logging_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=data["train"],
            eval_dataset=data["val"],
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda output: {
                "calibrated": calibrated_log_loss(
                    np.asarray(output.label_ids), _sigmoid(output.predictions)
                )
            },
        )
        trainer.train()
        probs = {
            name: _sigmoid(trainer.predict(data[name]).predictions) for name in ("val", "test")
        }
    return probs, calibrated_log_loss(splits["val"].labels, probs["val"])


def _encode(split: Split, tokenizer: Callable[..., Any]) -> Any:
    encoded = tokenizer(list(split.texts), truncation=True, max_length=512)
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": labels.tolist()}
        for ids, mask, labels in zip(
            encoded["input_ids"], encoded["attention_mask"], split.labels, strict=True
        )
    ]


def _sigmoid(logits: Any) -> np.ndarray:
    return (1 / (1 + np.exp(-np.asarray(logits, np.float64)))).astype(np.float32)
