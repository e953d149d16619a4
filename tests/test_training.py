"""The loop: seeded to the bit, the same images for every arm, and no silent NaN."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trustlib import data, losses, training
from trustlib.recipe import Recipe


def small_net(outputs):
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, outputs))


def squeeze(net):
    return nn.Sequential(net, nn.Flatten(0))  # (B, 1) -> (B,)


def quiet(line):
    pass


def train(net, target, loss, seed=0, **changes):
    recipe = {"epochs": 2, "images": 600, "batch": 50, "rate": 5e-3, "weight_decay": 0.0}
    recipe |= {key: changes.pop(key) for key in changes.keys() & Recipe.model_fields.keys()}
    settings = {"views": 2, "log": quiet} | changes
    return training.train(net, data.digits(), target, loss, Recipe(**recipe), seed=seed, **settings)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    target = torch.arange(3000) % 3 > 0
    weights = []
    for seed in (0, 0, 1):
        net = squeeze(small_net(1))
        history = train(net, target, losses.cross_entropy, seed)
        weights.append((torch.cat([p.flatten() for p in net.parameters()]), [h["loss"] for h in history]))
    assert torch.equal(weights[0][0], weights[1][0])
    assert weights[0][1] == weights[1][1]
    assert not torch.equal(weights[0][0], weights[2][0])


def test_every_arm_sees_the_same_images_in_the_same_order():
    class Recorder(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.linear, self.seen = nn.Linear(784, width), []

        def forward(self, x):
            self.seen.append(x.clone())
            return self.linear(x.flatten(1)).mean(1)

    first, second = Recorder(1), Recorder(5)
    train(first, torch.ones(3000, dtype=torch.bool), losses.cross_entropy, rate=1e-3)
    train(second, torch.rand(3000), losses.tcp, rate=1e-3)
    assert len(first.seen) == 2 * 12
    assert all(torch.equal(a, b) for a, b in zip(first.seen, second.seen, strict=True))
    assert not torch.equal(first.seen[0], first.seen[12])  # another order in the second epoch
    assert len({bytes(x.numpy()) for batch in first.seen[:12] for x in batch}) == 600


def test_each_view_is_trained_on_its_own_target():
    # View 0 of every image has target 0, its mirror image target 1. What the loss is given must agree with the picture.
    images, asked = data.digits(), []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            self.batch = x
            return self.bias.expand(len(x))

    spy = Spy()
    upright = {bytes(x.numpy()) for x in images.view("train", slice(None))}

    def loss(z, target):
        asked.extend((bytes(x.numpy()) in upright, bool(t)) for x, t in zip(spy.batch, target, strict=True))
        return losses.cross_entropy(z, target)

    train(spy, torch.stack([torch.zeros(3000), torch.ones(3000)]), loss)
    assert set(asked) == {(True, False), (False, True)}


def test_a_classifier_learns():
    images = data.digits()
    net = small_net(10)
    history = train(
        net, images.labels["train"], lambda o, y: F.cross_entropy(o, y, reduction="none"), images=None, views=1
    )
    net.eval()
    (logits,) = training.predict(net, images, "test")
    assert history[-1]["loss"] < history[0]["loss"]
    assert (logits.argmax(1) == images.labels["test"]).float().mean() > 0.8


def test_predict_keeps_the_order_whatever_the_batch():
    net = small_net(10).eval()
    (whole,) = training.predict(net, data.digits(), "test", batch=1000)
    (parts,) = training.predict(net, data.digits(), "test", batch=77)
    torch.testing.assert_close(whole, parts)


def test_a_loss_that_is_not_finite_stops_the_training():
    net = squeeze(small_net(1))
    with pytest.raises(training.TrainingError, match=r"the loss is nan in epoch 1 of 2 \(rate 0.005, seed 7\)"):
        train(net, torch.ones(3000), lambda z, target: z * torch.nan, seed=7)


def test_a_batch_larger_than_the_data_is_an_error():
    with pytest.raises(ValueError, match="a batch of 700 is larger than the 600"):
        train(small_net(1), torch.ones(3000), losses.cross_entropy, batch=700)


def test_only_the_images_asked_for_are_learnt_from():
    seen = []

    class Recorder(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            seen.extend(bytes(image.numpy()) for image in x)
            return self.bias.expand(len(x))

    images, among = data.digits(), torch.arange(0, 1000, 4)
    target = torch.ones(1000, dtype=torch.bool)
    train(Recorder(), target, losses.cross_entropy, part="heldout", among=among, images=None, views=1, epochs=1)
    allowed = {bytes(image.numpy()) for image in images.view("heldout", among)}
    assert len(seen) == 250
    assert set(seen) <= allowed


def test_the_released_recipe_is_sgd_under_onecyclelr():
    # By hand, on the same batches: SGD whose rate and momentum PyTorch's OneCycleLR cycles, all else at its defaults.
    images, target, batches = data.digits(), torch.arange(3000) % 3 > 0, []

    def loss(z, o):
        batches.append(o)
        return losses.cross_entropy(z, o)

    net, twin = (squeeze(nn.Sequential(nn.Flatten(), small_net(1)[1], nn.ReLU(), small_net(1)[4])) for _ in range(2))
    twin.load_state_dict(net.state_dict())
    settings = {"optimizer": "onecycle", "rate": 0.01, "epochs": 1, "images": 1000, "batch": 50, "views": 1}
    train(net, target, loss, **settings)
    draw = torch.Generator().manual_seed(0)
    subset = torch.randperm(3000, generator=draw)[:1000]
    order = subset[torch.randperm(1000, generator=draw)]
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=20, pct_start=0.1)
    for index, seen in zip(order.split(50), batches, strict=True):
        assert torch.equal(target[index], seen)
        optimizer.zero_grad()
        losses.cross_entropy(twin(images.view("train", index)), target[index]).mean().backward()
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
@pytest.mark.parametrize("stop", [7, 13, 24])  # in the first epoch of 12 steps, in the second, at the very end
def test_a_training_that_was_interrupted_goes_on_to_the_same_bits(optimizer, stop):
    target = torch.arange(3000) % 3 > 0
    settings = {"optimizer": optimizer, "rate": 1e-3}
    whole = squeeze(nn.Sequential(nn.BatchNorm2d(1), small_net(1)))
    broken = copy.deepcopy(whole)
    checkpoints = Memory(stop)
    history = train(whole, target, losses.cross_entropy, **settings)
    with pytest.raises(Interrupted):
        train(copy.deepcopy(broken), target, losses.cross_entropy, checkpoints=checkpoints, **settings)
    taken = len(checkpoints.states)
    checkpoints.stop = None
    again = train(broken, target, losses.cross_entropy, checkpoints=checkpoints, **settings)
    assert taken == (stop - 1) // 5
    assert len(checkpoints.states) == 4  # at steps 5, 10, 15 and 20 of 24: none is taken twice
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, broken.state_dict()[name]), name
    assert [h["loss"] for h in again] == [h["loss"] for h in history]


def test_a_checkpoint_at_the_end_of_an_epoch_keeps_its_loss_for_the_history():
    target = torch.arange(3000) % 3 > 0
    whole = squeeze(small_net(1))
    resumed = copy.deepcopy(whole)
    checkpoints = Memory(stop=14, every=12)  # an epoch has 12 steps
    history = train(whole, target, losses.cross_entropy)
    with pytest.raises(Interrupted):
        train(copy.deepcopy(resumed), target, losses.cross_entropy, checkpoints=checkpoints)
    checkpoints.stop = None
    again = train(resumed, target, losses.cross_entropy, checkpoints=checkpoints)
    assert [(h["epoch"], h["loss"]) for h in again] == [(h["epoch"], h["loss"]) for h in history]
    assert torch.equal(whole[0][1].weight, resumed[0][1].weight)


def test_what_is_frozen_stays(monkeypatch):
    class Spy(nn.Dropout):
        modes = []  # noqa: RUF012

        def forward(self, x):
            self.modes.append(self.training)
            return super().forward(x)

    for frozen, (norm, dropout) in {"nothing": (True, True), "norm": (False, True), "noise": (False, False)}.items():
        net = squeeze(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), Spy(0.2), nn.Linear(784, 1)))
        before = net[0][1].running_mean.clone()
        train(net, torch.ones(3000, dtype=torch.bool), losses.cross_entropy, frozen=frozen, epochs=1)
        assert (not torch.equal(before, net[0][1].running_mean)) == norm
        assert set(Spy.modes) == {dropout}
        Spy.modes.clear()


def test_one_rate_throughout_where_it_is_asked_for():
    net = squeeze(small_net(1))
    for name, expected in {"adam": {1e-3}, "sgd": {1e-3}}.items():
        recipe = Recipe(epochs=1, batch=50, rate=1e-3, weight_decay=0.0, optimizer=name)
        optimizer, schedule = training._optimizer(net, recipe, 4)
        rates = set()
        for _ in range(4):
            optimizer.step()
            schedule.step()
            rates.add(optimizer.param_groups[0]["lr"])
        assert rates == expected


def test_a_head_learns_from_features_what_it_would_from_images():
    images, target = data.digits(), torch.arange(3000) % 3 > 0

    def features(part):
        views = [images.view(part, slice(None), view).flatten(1) for view in (0, 1)]
        return torch.stack(views)  # (2, N, 784)

    seen = data.Features({part: features(part) for part in ("train", "test")}, images.labels)
    whole, head = (squeeze(nn.Sequential(nn.Flatten(), nn.Linear(784, 1))) for _ in range(2))
    head.load_state_dict(whole.state_dict())
    recipe = Recipe(epochs=2, images=600, batch=50, rate=5e-3, weight_decay=0.0)
    for net, inputs in ((whole, images), (head, seen)):
        training.train(net, inputs, target, losses.cross_entropy, recipe, views=2, log=quiet)
    assert torch.equal(whole[0][1].weight, head[0][1].weight)
    (z,), (z_seen,) = training.predict(whole, images, "test"), training.predict(head, seen, "test")
    assert torch.equal(z, z_seen)


def test_predict_gives_chosen_images_and_their_labels_in_order():
    images, among = data.digits(), torch.tensor([7, 3, 999, 0])
    found = training.predict(lambda x, y: (x.mean((1, 2, 3)), y), images, "test", among=among, labelled=True, batch=3)
    torch.testing.assert_close(found[0], images.view("test", among).mean((1, 2, 3)))
    assert torch.equal(found[1], images.labels["test"][among])


def test_a_compiled_network_is_the_one_that_is_trained(monkeypatch):
    calls = []

    def compiled(net):
        calls.append(net)
        return lambda x: net(x)

    monkeypatch.setattr(training.torch, "compile", compiled)
    target = torch.arange(3000) % 3 > 0
    plain = squeeze(small_net(1))
    fast = copy.deepcopy(plain)
    train(plain, target, losses.cross_entropy)
    train(fast, target, losses.cross_entropy, compiled=True)
    assert calls == [fast]
    assert torch.equal(plain[0][1].weight, fast[0][1].weight)
