"""The loop: seeded to the bit, the same images for every method, and no silent NaN."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trustlib import data, losses, training
from trustlib.recipe import Recipe

EASY = torch.arange(3000) % 3 > 0


def small_net(outputs=1, dropout=0.2, norm=False):
    """Images to (B,), or to (B, outputs)."""
    torch.manual_seed(3)
    first = [nn.BatchNorm2d(1)] if norm else []
    layers = [nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, outputs)]
    return nn.Sequential(*first, *layers, *([nn.Flatten(0)] if outputs == 1 else []))


def quiet(line):
    pass


def train(net, target=EASY, loss=losses.cross_entropy, seed=0, **changes):
    recipe = {"epochs": 2, "images": 600, "batch": 50, "rate": 5e-3, "weight_decay": 0.0}
    recipe |= {key: changes.pop(key) for key in changes.keys() & Recipe.model_fields.keys()}
    settings = {"views": 2, "log": quiet} | changes
    return training.train(net, data.digits(), target, loss, Recipe(**recipe), seed=seed, **settings)


def watched(net):
    """A network and the list of the batches that it is shown."""
    shown = []
    net.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0].clone()))
    return net, shown


def pictures(*batches):
    return [bytes(image.numpy()) for batch in batches for image in batch]


def same_bits(one, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def losses_of(history):
    return [(row["epoch"], row["loss"]) for row in history]


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    first, second, third = (small_net() for _ in range(3))
    assert losses_of(train(first)) == losses_of(train(second))
    train(third, seed=1)
    assert same_bits(first, second)
    assert not same_bits(first, third)


def test_every_method_sees_the_same_images_in_the_same_order():
    first, of_first = watched(small_net())
    second, of_second = watched(nn.Sequential(nn.Flatten(), nn.Linear(784, 1), nn.Flatten(0)))  # draws no dropout
    train(first, rate=1e-3)
    train(second, torch.rand(3000), losses.tcp, rate=1e-3)
    assert len(of_first) == 2 * 12
    assert all(torch.equal(a, b) for a, b in zip(of_first, of_second, strict=True))
    assert not torch.equal(of_first[0], of_first[12])  # another order in the second epoch
    assert len(set(pictures(*of_first[:12]))) == 600


def test_each_view_is_trained_on_its_own_target():
    # View 0 of every image has target 0, its mirror image target 1. What the loss is given must agree with the picture.
    net, shown = watched(small_net())
    upright, agreed = set(pictures(data.digits().view("train", slice(None)))), set()

    def loss(z, target):
        agreed.update((image in upright, bool(t)) for image, t in zip(pictures(shown[-1]), target, strict=True))
        return losses.cross_entropy(z, target)

    train(net, torch.stack([torch.zeros(3000), torch.ones(3000)]), loss)
    assert agreed == {(True, False), (False, True)}


def test_only_the_images_among_which_to_choose_are_trained_on():
    net, shown = watched(small_net())
    among, target = torch.arange(0, 1000, 4), torch.ones(1000, dtype=torch.bool)
    train(net, target, part="heldout", among=among, images=None, views=1, epochs=1)
    assert sum(map(len, shown)) == 250
    assert set(pictures(*shown)) <= set(pictures(data.digits().view("heldout", among)))


def test_a_classifier_learns_and_is_read_in_order_whatever_the_batch():
    images, net = data.digits(), small_net(10)
    labels = images.labels
    history = train(net, labels["train"], lambda o, y: F.cross_entropy(o, y, reduction="none"), images=None, views=1)
    net.eval()
    (logits,) = training.predict(net, images, "test", batch=1000)
    assert history[-1]["loss"] < history[0]["loss"]
    assert (logits.argmax(1) == labels["test"]).float().mean() > 0.8
    torch.testing.assert_close(training.predict(net, images, "test", batch=77)[0], logits)
    among = torch.tensor([7, 3, 999, 0])
    found = training.predict(lambda x, y: (net(x), y), images, "test", among=among, labelled=True, batch=3)
    torch.testing.assert_close(found[0], logits[among])
    assert torch.equal(found[1], labels["test"][among])


def test_a_loss_that_is_not_finite_and_a_batch_larger_than_the_data_stop_the_training():
    with pytest.raises(training.TrainingError, match=r"the loss is nan in epoch 1 of 2 \(rate 0.005, seed 7\)"):
        train(small_net(), loss=lambda z, target: z * torch.nan, seed=7)
    with pytest.raises(ValueError, match="a batch of 700 is larger than the 600"):
        train(small_net(), batch=700)


def test_the_released_recipe_is_sgd_under_onecyclelr():
    # By hand, on the same batches: SGD whose rate and momentum PyTorch's OneCycleLR cycles, all else at its defaults.
    images, batches = data.digits(), []

    def loss(z, o):
        batches.append(o)
        return losses.cross_entropy(z, o)

    net, twin = small_net(dropout=0.0), small_net(dropout=0.0)
    train(net, EASY, loss, optimizer="onecycle", rate=0.01, epochs=1, images=1000, views=1)
    draw = torch.Generator().manual_seed(0)
    subset = torch.randperm(3000, generator=draw)[:1000]
    order = subset[torch.randperm(1000, generator=draw)]
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=20, pct_start=0.1)
    for index, seen in zip(order.split(50), batches, strict=True):
        assert torch.equal(EASY[index], seen)
        optimizer.zero_grad()
        losses.cross_entropy(twin(images.view("train", index)), EASY[index]).mean().backward()
        optimizer.step()
        schedule.step()
    for mine, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


class Interrupted(Exception):
    pass


class Memory:
    """Keeps every state, a copy each; stops the training after a number of steps."""

    def __init__(self, stop=None, every=5):
        self.states, self.stop, self.every = [], stop, every

    def latest(self):
        return copy.deepcopy(self.states[-1]) if self.states else None

    def due(self, steps):
        if steps == self.stop:
            raise Interrupted
        return steps % self.every == 0

    def save(self, state):
        self.states.append(copy.deepcopy(state))


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "onecycle"])
@pytest.mark.parametrize(  # an epoch has 12 steps
    ("stop", "every"), [(7, 5), (13, 5), (24, 5), (14, 12)], ids=["first epoch", "second", "end", "from an epoch's end"]
)
def test_a_training_that_was_interrupted_goes_on_to_the_same_bits(optimizer, stop, every):
    settings = {"optimizer": optimizer, "rate": 1e-3, "bfloat16": optimizer == "adam"}
    settings["crop"] = 2 if optimizer == "sgd" else 0
    whole, first, second = (small_net(norm=True) for _ in range(3))
    checkpoints = Memory(stop, every)
    history = train(whole, **settings)
    with pytest.raises(Interrupted):
        train(first, checkpoints=checkpoints, **settings)
    assert len(checkpoints.states) == (stop - 1) // every
    checkpoints.stop = None
    again = train(second, checkpoints=checkpoints, **settings)
    assert len(checkpoints.states) == 24 // every  # none is taken twice
    assert same_bits(whole, second)
    assert losses_of(again) == losses_of(history)


def test_bfloat16_rounds_what_a_network_computes_but_not_its_weights_or_losses():
    (exact, rounded), seen = (small_net(norm=True) for _ in range(2)), []
    rounded.register_forward_hook(lambda net, x, output: seen.append(output.dtype))
    expected, found = ([loss for _, loss in losses_of(train(net, bfloat16=net is rounded))] for net in (exact, rounded))
    assert seen == [torch.bfloat16] * len(seen)
    assert all(value.dtype == torch.float32 for value in rounded.parameters())
    assert found == pytest.approx(expected, rel=0.02)
    assert found != expected


def test_a_cropped_image_is_a_piece_of_the_padded_one():
    x, corner = torch.rand(3, 2, 8, 6), torch.tensor([[0, 0], [2, 2], [4, 1]])
    pieces = training.cropped(x, corner, 2)
    padded = F.pad(x, [2] * 4, mode="reflect")
    for piece, of, (row, column) in zip(pieces, padded, corner, strict=True):
        assert torch.equal(piece, of[:, row : row + 8, column : column + 6])
    assert torch.equal(pieces[1], x[1])


@pytest.mark.parametrize(
    ("frozen", "norm", "dropout"), [("nothing", True, True), ("norm", False, True), ("noise", False, False)]
)
def test_what_is_frozen_stays(frozen, norm, dropout):
    net, modes = small_net(norm=True), []
    net[4].register_forward_pre_hook(lambda layer, _: modes.append(layer.training))
    before = net[0].running_mean.clone()
    train(net, frozen=frozen, epochs=1)
    assert (not torch.equal(before, net[0].running_mean)) == norm
    assert set(modes) == {dropout}


def test_a_head_learns_from_features_what_it_would_from_images():
    images, recipe = data.digits(), Recipe(epochs=2, images=600, batch=50, rate=5e-3, weight_decay=0.0)
    kept = {
        part: torch.stack([images.view(part, slice(None), view).flatten(1) for view in (0, 1)])  # (2, N, 784)
        for part in ("train", "test")
    }
    seen = data.Features(kept, images.labels)
    whole, head = small_net(), small_net()
    for net, inputs in ((whole, images), (head, seen)):
        training.train(net, inputs, EASY, losses.cross_entropy, recipe, views=2, log=quiet)
    assert same_bits(whole, head)
    z, z_seen = (training.predict(net.eval(), inputs, "test")[0] for net, inputs in ((whole, images), (head, seen)))
    assert torch.equal(z, z_seen)


def test_a_compiled_network_is_the_one_that_is_trained(monkeypatch):
    calls = []
    monkeypatch.setattr(training.torch, "compile", lambda net: calls.append(net) or (lambda x: net(x)))
    plain, fast = small_net(), small_net()
    train(plain)
    train(fast, compiled=True)
    assert calls == [fast]
    assert same_bits(plain, fast)
