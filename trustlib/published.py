"""What the paper's own tables say (data/published), with the intervals and areas that follow from their figures."""

import numpy as np
import pandas as pd

from . import data, statistics
from .study import Study


def table(name: str) -> pd.DataFrame:
    """A table of data/published, one row a row of the paper, metrics as columns, fractions."""
    frame = pd.read_csv(data.ROOT / "data" / "published" / f"{name}.csv")
    first = frame.columns[0]
    order = list(dict.fromkeys(zip(frame[first], frame["loss"], strict=True)))
    wide = frame.pivot(index=[first, "loss"], columns="metric", values="mean").div(100).reindex(order)
    return wide.rename_axis(index=["group", "loss"])


TABLE_2: dict[str, str | None] = {  # row of the paper's Table 2 -> what this study has for it, if anything
    "mcp": "mcp", "mc_dropout": "mc_dropout_logits", "trust_score": "trust_score", "tcp": "tcp", "tcp-dagger": None,
    "ss": "ss-released",
}  # fmt: skip
TESTED = 10_000  # test images of MNIST and of CIFAR-10
ROUNDED = 0.5001e-4  # half a unit of the last digit of a published rate


def follows_table2(study: Study) -> bool:
    """Whether a study is one of those that follow ConfidNet's protocol, and so has Table 2 of its own."""
    return study.dataset in ("mnist", "cifar10") and "ss-released" in study.arms


def table2(dataset: str) -> pd.DataFrame:
    """The paper's Table 2 on one data set, with the 95 % intervals that its own counts allow.

    One run on 10,000 test images: rates get exact intervals (Clopper-Pearson) from their counts, which follow from the
    accuracy; the AUC gets Hanley and McNeil's; areas under precision-recall curves get none. Nor does a row with a rate
    that is no count of these images: MC dropout's, whose FPR of 5.26 % on MNIST is 5 of 95 where the others have 90.

    Returns
    -------
    A row a row of the table and metric: loss, metric, estimate, low, high; fractions.
    """
    rows = []
    for (group, loss), row in table("table2").iterrows():
        if group != dataset:
            continue
        right = round(row["accuracy"] * TESTED)
        counts = {"accuracy": TESTED, "fpr95": TESTED - right, "tnr": TESTED - right, "tpr": right}
        rates = {metric: value for metric, value in row.dropna().items() if metric in counts}
        counted = all(abs(round(v * counts[m]) / counts[m] - v) <= ROUNDED for m, v in rates.items())
        for metric, value in row.dropna().items():
            ends = (np.nan, np.nan)
            if metric in rates and counted:
                ends = statistics.clopper_pearson(round(value * counts[metric]), counts[metric])
            elif metric == "auroc" and counted:
                ends = statistics.hanley_mcneil(value, right, TESTED - right)
            rows.append(
                {"loss": loss, "metric": metric, "estimate": value, **dict(zip(("low", "high"), ends, strict=True))}
            )
    return pd.DataFrame(rows)


def binormal_check() -> pd.DataFrame:
    """Tables 1 and 3 beside what a binormal model of each row's accuracy and AUC predicts for its areas, fractions.

    Returns
    -------
    A row a row of the tables (index table, group, loss): accuracy, auroc; aupr_success, success_model, the control;
    aupr_error, negated_model, not_negated_model; fits: "negated", "not negated", "both" or "neither", by
    `statistics.binormal_aupr` within `FIT`.
    """
    rows = pd.concat({name: table(name) for name in ("table1", "table3")}, names=["table"])
    model = pd.DataFrame([statistics.binormal_aupr(row.accuracy, row.auroc) for row in rows.itertuples()], rows.index)
    names = {"aupr_success": "success_model", "aupr_error": "negated_model"}
    model = model.rename(columns=names | {"aupr_error_released": "not_negated_model"})
    frame = pd.concat([rows[["accuracy", "auroc", "aupr_success", "aupr_error"]], model], axis=1)
    near = {
        sign: (frame["aupr_error"] - frame[f"{sign.replace(' ', '_')}_model"]).abs() <= FIT
        for sign in ("negated", "not negated")
    }
    choices = [near["negated"] & near["not negated"], near["negated"], near["not negated"]]
    return frame.assign(fits=np.select(choices, ["both", "negated", "not negated"], "neither"))


FIT = 0.02  # how near a published area must lie to the model's to fit it; the report shows how well the control does
