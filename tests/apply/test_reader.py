"""Tables as people have them: what each column is taken for, what is refused, and what the reader says."""

import numpy as np
import pandas as pd
import pytest

from trustlib.apply import reader
from trustlib.apply.reader import PredictionsError, from_frame, read

N, K = 60, 3
CLASSES = ("cat", "dog", "eel")
ROW = np.arange(N)
RIGHT = ROW % 4 > 0
LABEL = ROW % K
LOGITS = 5.0 * np.eye(K)[np.where(RIGHT, LABEL, (LABEL + 1) % K)] + np.random.default_rng(0).normal(size=(N, K))
MINE = np.random.default_rng(1).random(N).round(6)
JUDGED = pd.DataFrame({"correct": RIGHT.astype(int), "mine": MINE})
OUTPUTS = pd.DataFrame(LOGITS, columns=[f"logit_{of}" for of in CLASSES]).assign(label=np.array(CLASSES)[LABEL])
P = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


def lines(header, *columns):
    return "\n".join([header, *(",".join(map(str, row)) for row in zip(*columns, strict=True))])


def says(table, *words):
    return any(all(word in note for word in words) for note in table.notes)


# --- What decides ---


def test_confidences_and_whether_each_prediction_is_correct(save):
    found = read(save(JUDGED.assign(image=[f"{i}.png" for i in ROW], remark="x")))
    assert found.source == "a.csv"
    np.testing.assert_array_equal(found.correct, RIGHT)
    np.testing.assert_array_equal(found.confidences["mine"], MINE)
    assert found.rows[:2].tolist() == ["0.png", "1.png"]
    assert found.unused == ("remark",)
    assert found.logits is found.label is found.group is found.cluster is None
    assert says(found, "confidences: mine")
    assert says(found, "remark", "text")
    assert says(found, "named by image")


NO_CONFIDENCE = {  # name -> values (N,), and the word that says why
    "patient": ((ROW * 37) % 101 + 2000, "an id"),
    "grade": (ROW % 5, "whole numbers"),
    "masked": (ROW % 2, "whole numbers"),
    "Unnamed: 0": (ROW, "number of the row"),
    "version": (np.full(N, 1.5), "constant"),
    "read_time": (MINE * 9, "a time"),
    "stamp": (1.7e9 + MINE, "as large as"),
    "age": (np.where(ROW == 9, "unknown", ROW + 0.5), "measurement"),
    "xmin": (MINE * 640, "measurement"),
    "predictive_entropy": (MINE, "less sure"),
    "prob_malignant": (MINE, "one class"),
    "site": (np.array(["a", "b"])[ROW % 2], "text"),
    "taken": (pd.Timestamp("2024-01-02") + pd.to_timedelta(ROW, "D"), "text"),
}


@pytest.mark.parametrize("name", NO_CONFIDENCE)
def test_what_is_no_confidence_decides_only_where_it_is_named(name, save):
    values, why = NO_CONFIDENCE[name]
    table = pd.DataFrame({name: values}).join(JUDGED)
    for found in (read(save(table)), from_frame(table)):
        assert list(found.confidences) == ["mine"]
        assert says(found, name, why) or found.rows is not None
    with pytest.raises(PredictionsError, match=rf"no column is a confidence \({name}: .*{why}.*--confidence"):
        read(save(table.drop(columns="mine")))
    if why not in ("text", "measurement"):
        named = read(save(table), confidences=[name])
        np.testing.assert_allclose(named.confidences[name], np.asarray(values, float))


def test_a_column_that_is_called_a_confidence_decides(save):
    found = read(save(JUDGED.assign(neg_entropy=MINE - 1, my_score=ROW % 7, Confidence=MINE / 2)))
    assert list(found.confidences) == ["my_score", "Confidence", "mine", "neg_entropy"]
    assert list(read(save(JUDGED.assign(other=MINE)), confidences=("other", "mine")).confidences) == ["other", "mine"]


@pytest.mark.parametrize("name", ["logit_margin", "prob_max"])
def test_a_name_like_that_of_a_class_may_be_a_confidence(name, save):
    for table in (
        JUDGED.rename(columns={"mine": name}),
        pd.DataFrame({"label": ROW % 3, "prediction": ROW * ROW % 3, name: MINE}),
        OUTPUTS.drop(columns="logit_eel").assign(label=OUTPUTS["label"].replace("eel", "cat"), **{name: MINE}),
    ):
        found = read(save(table))
        assert list(found.confidences) == [name]
        assert read(save(table), confidences=[name]).confidences.keys() == {name}


def test_other_names_of_truth_and_prediction(save):
    text = lines("Y_True,y_pred,msp", np.array(CLASSES)[ROW % 3], np.array(CLASSES)[ROW * ROW % 3], MINE)
    np.testing.assert_array_equal(read(save(text)).correct, ROW % 3 == ROW * ROW % 3)
    with pytest.raises(PredictionsError, match="found label, true_label: call the true class label"):
        read(save(lines("label,true_label,score", ROW % 3, ROW % 3, MINE)))


# --- Labels, predictions, outputs ---


@pytest.mark.parametrize(
    "pair",
    [
        (("0", "1"), ("LABEL_0", "LABEL_1")),
        (("False", "True"), ("0", "1")),
        (("0", "1", "0"), ("0.0", "1.0", "unsure")),
        (("Cat", "Dog"), ("cat", "dog")),
    ],
)
def test_labels_and_predictions_that_share_no_value(pair, save):
    label, prediction = (np.array(values)[ROW % len(values)] for values in pair)
    with pytest.raises(PredictionsError, match=f"share no value: .*{pair[0][0]}, .*{pair[1][0]}, .*same words"):
        read(save(lines("label,prediction,confidence", label, prediction, MINE)))


@pytest.mark.parametrize("names", [("None", "mass"), ("NA", "null"), ("00000", "00001"), ("nan", "1.50")])
def test_a_class_may_have_any_name(names, save):
    label = np.array(names)[ROW % 2]
    p = np.where(RIGHT, 0.9, 0.2)
    table = pd.DataFrame(
        {f"prob_{names[0]}": np.where(ROW % 2, 1 - p, p), f"prob_{names[1]}": np.where(ROW % 2, p, 1 - p)}
    )
    found = read(save(table.assign(label=label)), drop=True)
    assert (found.classes, found.dropped) == (names, 0)
    np.testing.assert_array_equal(found.correct, RIGHT)


@pytest.mark.parametrize("label", [LABEL, LABEL.astype(float), np.array(CLASSES)[LABEL]])
@pytest.mark.parametrize("write", ["npz", "csv", "frame"])
def test_outputs_of_named_classes(label, write, save):
    if write == "npz":
        arrays = {"logits": LOGITS.astype(np.float32), "labels": label, "classes": np.array(CLASSES)}
        found = read(
            save(
                arrays
                | {"features": np.ones((N, 8)), "epoch": np.array(9), "mean": np.ones(3), "image": LOGITS, "probs": P},
                "a.npz",
            )
        )
        assert found.unused == ("features", "epoch", "mean", "image", "probs")
    else:
        table = OUTPUTS.assign(label=label)
        found = read(save(table)) if write == "csv" else from_frame(table)
    assert found.classes == CLASSES
    np.testing.assert_allclose(found.logits, LOGITS, rtol=1e-6)
    np.testing.assert_array_equal(found.label, LABEL)
    np.testing.assert_array_equal(found.correct, LOGITS.argmax(1) == LABEL)
    assert read(save(OUTPUTS), confidences=["logit_cat"]).confidences.keys() == {"logit_cat"}
    assert says(found, "places") == (label.dtype.kind != "U")
    assert not found.probabilities


def test_columns_of_predict_proba(save):
    for names, label in ((range(K), LABEL), (CLASSES, np.array(CLASSES)[LABEL])):
        found = read(save(pd.DataFrame(P, columns=names).assign(y_true=label, fold=ROW % 5)))
        assert found.probabilities
        np.testing.assert_allclose(np.exp(found.logits), P)
        np.testing.assert_array_equal(found.label, LABEL)


def test_where_two_classes_are_the_highest_the_prediction_says_which(save):
    found = read(save("label,prediction,prob_0,prob_1\n1,1,0.5,0.5\n0,0,0.9,0.1\n"))
    assert found.correct.tolist() == [True, True]


def test_labels_that_are_no_whole_numbers_stay_as_they_are(save):
    found = read(save("label,prediction,mine\n1,inf,0.5\n1e300,1,0.2\n10,9,0.1"))
    assert found.classes == ("1", "9", "10", "1e300", "inf")


@pytest.mark.parametrize("digits", [2, 3])
@pytest.mark.parametrize("unit", [1, 100])
def test_rounded_probabilities_are_rescaled(digits, unit, save):
    p = np.random.default_rng(0).dirichlet(np.full(10, 0.3), 200).round(digits)
    assert abs(p.sum(1) - 1).max() > reader.SUM_TOLERANCE
    label = p.argmax(1)
    names = [f"prob_{k}" for k in range(10)]
    found = read(save(pd.DataFrame((p * unit).round(digits), columns=names).assign(label=label)))
    assert found.correct.all()
    np.testing.assert_allclose(np.exp(found.logits).sum(1), 1)
    assert says(found, "rounded", "rescaled")
    assert says(found, "per cent") == (unit == 100)
    with pytest.raises(PredictionsError, match="sum to one"):  # more than rounding
        read(save(pd.DataFrame(p * 1.1, columns=names).assign(label=label)))


# --- One probability of two classes ---


@pytest.mark.parametrize("name", ["probability", "prob_1", "y_prob", "score"])
@pytest.mark.parametrize("cut", [0.5, 0.3])
def test_the_probability_of_one_class_becomes_that_of_the_predicted_one(name, cut, save):
    predicted = np.where(cut < MINE, 1, 0)
    label = np.where(RIGHT, predicted, 1 - predicted)
    table = pd.DataFrame({"label": label, "prediction": predicted, name: MINE})
    expected = np.where(predicted, MINE, 1 - MINE)
    assert (expected == np.maximum(MINE, 1 - MINE)).all() == (cut == 0.5)
    found = [read(save(table)), from_frame(table), read(save(table.assign(**{name: [f"{p:.4%}" for p in MINE]})))]
    found += [read(save(table.drop(columns="prediction")))] if cut == 0.5 else []
    for one in found:
        np.testing.assert_allclose(one.confidences[f"{name} of the predicted class"], expected)
        assert name not in one.unused
        np.testing.assert_array_equal(one.correct, RIGHT)
        assert says(one, name, "1 - p")
    np.testing.assert_array_equal(read(save(table), confidences=[name]).confidences[name], MINE)


def test_the_score_of_one_class_and_a_confidence_that_is_none(save):
    score = np.log(MINE / (1 - MINE))
    table = pd.DataFrame(
        {"label": ROW % 2, "prediction": np.where(score > 0, 1, 0), "decision": score, "mine": MINE / 2}
    )
    found = read(save(table.assign(mine=np.random.default_rng(3).random(N))))
    np.testing.assert_allclose(found.confidences["decision of the predicted class"], abs(score))
    assert found.confidences["mine"].min() < 0.5
    assert says(found, "decision", "size")


# --- Numbers ---


@pytest.mark.parametrize(
    ("write", "note"),
    [
        ("{:.2%}".format, "per cent"),
        (lambda p: f"{100 * p:.2f}", "per cent"),
        (lambda p: f'"{p:.4f}"'.replace(".", ","), ""),
        (lambda p: f" {p:.4f} ", ""),
    ],
)
def test_numbers_in_other_dress(write, note, save):
    values = np.linspace(0.0123, 0.9877, N).round(4)
    found = read(save(lines("patient,correct,confidence", ROW * 7 % 41, RIGHT, map(write, values))))
    np.testing.assert_allclose(found.confidences["confidence"], values)
    assert says(found, note)


def test_thousands_are_not_taken_for_decimals(save):
    text = lines("correct,confidence", RIGHT, ['"1,234"'] * N)
    with pytest.raises(PredictionsError, match="column confidence: expected numbers, found 1,234"):
        read(save(text))
    assert read(save(text), confidences="confidence", decimal=",").confidences["confidence"][0] == 1.234


def test_what_rounding_leaves_beyond_one_is_one(save):
    values = np.linspace(-1e-9, 1.0000054, N)
    found = read(save(lines("correct,confidence", RIGHT, values)))
    assert (found.confidences["confidence"].min(), found.confidences["confidence"].max()) == (0, 1)
    assert says(found, "1.0000054")


# --- What is refused ---


def changed(table, column, rows, value):
    table = table.astype({column: object})
    table.loc[rows, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (JUDGED.rename(columns={"correct": "ok"}), "expected a column correct .* found ok, mine"),
        (JUDGED.assign(mine="x"), r"no column is a confidence \(mine: text\)"),
        (JUDGED.iloc[:0], "there are no rows"),
        (changed(JUDGED, "mine", [3, 7], None), r"missing .* in 2 of 60 rows \(numbers 4, 8\), of .* mine: .*--drop"),
        (changed(JUDGED, "mine", [3], "NA"), r"missing .* in 1 of 60 rows \(number 4\)"),
        (changed(JUDGED, "mine", [3], "high"), r"column mine: expected numbers, found high in 1 of 60 .*4\)"),
        (changed(JUDGED, "correct", [0], 2), r"column correct: .* found 2 in 1 of 60 rows \(number 1\)"),
        (changed(OUTPUTS, "label", [1], "fox"), r"one of the classes, cat, .*; found fox in 1 of .*number 2\)"),
        (OUTPUTS.assign(label="fox"), "labels and classes share no name: found the labels fox and the classes cat"),
        (changed(OUTPUTS, "logit_dog", [5], np.inf), r"finite logits, found infinite ones in 1 of .*number 6\)"),
        (OUTPUTS.rename(columns=lambda n: n.replace("logit", "prob")), "sum to one .*columns logit_CLASS"),
        (OUTPUTS.assign(prob_cat=0.5), "found columns prob_... and logit_...: keep one kind"),
        (OUTPUTS.assign(correct=1), "column correct says otherwise than label and prediction in .* of 60 rows"),
        (OUTPUTS.assign(prediction="cat"), "prediction names another class than the highest in .* of 60 rows"),
        (pd.DataFrame({"label": ROW % 2, "mine": MINE}), "expected a column correct"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(table, message, save):
    path = save(table)
    with pytest.raises(PredictionsError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)
    with pytest.raises(PredictionsError, match=message):
        from_frame(table)


def test_rows_in_which_something_is_missing_are_left_out_where_that_is_wanted(save):
    table = changed(OUTPUTS.set_axis([*(f"logit_{k}" for k in range(K)), "label"], axis=1), "label", [4], np.nan)
    table["label"] = np.where(ROW == 4, np.nan, LABEL)
    found = read(save(table), drop=True)
    assert found.dropped == 1
    np.testing.assert_array_equal(found.label, np.delete(LABEL, 4))


@pytest.mark.parametrize("name", ["confidences", "group", "cluster"])
def test_a_column_that_is_not_there_is_named_with_those_that_are(name, save):
    with pytest.raises(PredictionsError, match="no column 'site'; found correct, mine"):
        read(save(JUDGED), **{name: "site"})
