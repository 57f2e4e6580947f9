"""How well predictions agree with labels, scheme by scheme."""

from collections.abc import Mapping

import numpy as np
from sklearn import metrics

from ugrie.schemes import Scheme


def evaluate(scheme: Scheme, targets: np.ndarray, probs: np.ndarray) -> Mapping[str, float]:
    """Measures for one scheme. `targets` and `probs` are float [n, labels], rows adding up to one.

    Categorical: accuracy, balanced accuracy, macro-F1 over all the scheme's labels, NLL in nats, and for two labels ROC AUC.
    Ordinal: Pearson r, concordance (CCC, Lin 1989) and mean absolute error of the expectation, in the scheme's range; and
    the error of a constant, the mean of the labels evaluated.
    """
    if scheme.kind == "ordinal":
        values = np.asarray(scheme.values)
        wanted, given = targets @ values, probs @ values
        covariance = np.mean((wanted - wanted.mean()) * (given - given.mean()))
        return {
            "n": len(wanted),
            "pearson_r": float(covariance / max(wanted.std() * given.std(), 1e-12)),
            "ccc": float(2 * covariance / (wanted.var() + given.var() + (wanted.mean() - given.mean()) ** 2)),
            "mae": float(np.abs(wanted - given).mean()),
            "mae_of_constant": float(np.abs(wanted - wanted.mean()).mean()),
        }
    wanted, given = targets.argmax(1), probs.argmax(1)
    measured = {
        "n": len(wanted),
        "accuracy": float((wanted == given).mean()),
        "balanced_accuracy": float(metrics.balanced_accuracy_score(wanted, given)),
        "macro_f1": float(metrics.f1_score(wanted, given, labels=range(len(scheme.labels)), average="macro", zero_division=0)),
        "nll": float(-np.log(np.maximum(probs[np.arange(len(wanted)), wanted], 1e-12)).mean()),
    }
    if len(scheme.labels) == 2 and len(np.unique(wanted)) == 2:
        measured["roc_auc"] = float(metrics.roc_auc_score(wanted, probs[:, 1]))
    return measured
