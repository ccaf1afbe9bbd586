"""The loop of all trainings: what it descends, tells and keeps, and how it goes on after a kill."""

from __future__ import annotations

import copy
import functools
import math
import operator
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from contexts import Killed, Recording, killed_and_resumed
from torch import nn

from methods.method import Context
from methods.toolkit import training
from methods.toolkit.assignments import compared
from methods.toolkit.fast.cuda_graphs import MEASURED, GraphedStep
from methods.toolkit.training import Batches, Loop, adam, check_finite, check_training

N, SIZE = 10, 4  # images and images per step: batches of 4, 4 and 2, three in an epoch
X = torch.linspace(-1, 1, N * 2).view(N, 2)
Losses = Callable[[torch.Tensor, int], Any]


def loop_of(
    losses: Losses, context: Context, seed: int | None = None, **more: Any
) -> tuple[Loop, nn.Parameter]:
    """A loop over N images, and the parameter ``(2,)`` that it trains, by gradient descent."""
    weight = nn.Parameter(torch.zeros(2))
    parts = {"weight": weight, **more.pop("parts", {})}
    optimiser = torch.optim.SGD([weight], lr=0.5)
    batches = Batches(N, SIZE, seed, "cpu")
    built = Loop(
        "toy", lambda *args: losses(weight, *args), optimiser, batches, context, parts, **more
    )
    return built, weight


def squares(weight: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
    """The mean of (w·x - 1)² over the rows of a batch."""
    return (X[rows] @ weight - 1).square().mean()


# What it descends, and what it tells


def test_it_descends_the_loss_of_every_batch_of_every_epoch() -> None:
    loop, weight = loop_of(squares, Context())
    for steps in loop.epochs(2):
        for rows in steps:
            loop.descend(rows)
    expected = np.zeros(2)
    for rows in [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] * 2:
        x = X[rows].double().numpy()
        expected -= 0.5 * (2 * (x @ expected - 1)[:, None] * x).mean(0)
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-5)
    assert (loop.done, loop.epoch) == (6, 2)


class Noticing(nn.Linear):
    """A linear map that knows whether it ran compiled."""

    def __init__(self) -> None:
        super().__init__(2, 1, bias=False)
        nn.init.zeros_(self.weight)
        self.compiled: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.compiled.append(torch.compiler.is_compiling())
        return super().forward(x)


def network_trained(compiled: str, monkeypatch: pytest.MonkeyPatch) -> Noticing:
    """A network after six steps, with ``BENCH_TORCH_COMPILE=compiled``."""
    monkeypatch.setenv("BENCH_TORCH_COMPILE", compiled)
    network = Noticing()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.5)

    def losses(rows: torch.Tensor, step: int) -> torch.Tensor:
        return (network(X[rows]).squeeze(1) - 1).square().mean()

    batches = Batches(N, SIZE, None, "cpu")
    loop = Loop("toy", losses, optimiser, batches, Context(), {"network": network})
    loop.train(2)
    return network


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_networks_learn_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same objects, so that a checkpoint and a copy of them are as before."""
    plain, compiled = (network_trained(wish, monkeypatch) for wish in ("off", "on"))
    assert (plain.compiled, compiled.compiled) == ([False] * 6, [True] * 6)
    torch.testing.assert_close(compiled.weight, plain.weight)
    assert [*compiled.state_dict()] == ["weight"]
    assert copy.deepcopy(compiled)(X).shape == (N, 1)


def test_a_misspelt_wish_to_compile_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="BENCH_TORCH_COMPILE is 'yes'; expected on or off"):
        network_trained("yes", monkeypatch)


def test_steps_run_on_over_the_passes_until_so_many_are_done() -> None:
    context = Recording()
    loop, _ = loop_of(squares, context)
    rows = []
    for batch in loop.steps(5):
        rows.append(batch.tolist())
        loop.descend(batch)
    assert rows == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert context.steps == [("step", done, 5) for done in range(1, 6)]
    assert list(loop.steps(5)) == []


def test_progress_of_epochs_counts_steps() -> None:
    context = Recording()
    loop, _ = loop_of(squares, context)
    for steps in loop.epochs(3):
        for rows in steps:
            loop.descend(rows)
    assert context.steps == [("step", done, 9) for done in range(1, 10)]


def test_a_mean_is_over_images_and_over_what_came_since_the_last_one() -> None:
    """Batches of 4, 4 and 2 images with the losses 1, 2 and 4."""
    loop, _ = loop_of(lambda weight, rows, step: weight.sum() * 0 + 2.0**step, Context())
    assert loop.mean() is None
    assert loop.means() == []
    for rows in loop.steps(3):
        loop.descend(rows)
    assert loop.mean() == pytest.approx((4 * 1 + 4 * 2 + 2 * 4) / 10)
    assert loop.mean() is None
    for rows in loop.steps(4):
        loop.descend(rows)
    assert loop.mean() == 8


def test_parts_of_the_loss_are_watched_in_its_place() -> None:
    def losses(weight: torch.Tensor, rows: torch.Tensor, step: int) -> tuple[torch.Tensor, ...]:
        loss = squares(weight, rows, step)
        return loss, torch.tensor(float(step)), torch.tensor(7.0)

    loop, weight = loop_of(losses, Context())
    plain, expected = loop_of(squares, Context())
    for one in (loop, plain):
        for rows in one.steps(3):
            one.descend(rows)
    assert loop.means() == pytest.approx([(4 * 0 + 4 * 1 + 2 * 2) / 10, 7])
    assert torch.equal(weight, expected)  # what is watched is not descended


def test_none_skips_a_step() -> None:
    def losses(weight: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor | None:
        return squares(weight, rows, step) if step == 1 else None

    context = Recording()
    loop, weight = loop_of(losses, context)
    moved = []
    for rows in loop.steps(3):
        before = weight.detach().clone()
        loop.descend(rows)
        moved.append(not torch.equal(before, weight))
    assert moved == [False, True, False]
    assert loop.done == len(context.steps) == 3
    assert loop.mean() == 1  # of the batch at weight 0, all (0 - 1)²


def test_a_schedule_sets_the_rate_of_each_step() -> None:
    """The gradient is 1 in every step: what is subtracted is the rate."""
    loop, weight = loop_of(
        lambda weight, rows, step: weight.sum(), Context(), schedule=lambda step: 1 / (step + 2)
    )
    left = []
    for rows in loop.steps(3):
        loop.descend(rows)
        left.append(weight[0].item())
    assert left == pytest.approx([-1 / 2, -1 / 2 - 1 / 3, -1 / 2 - 1 / 3 - 1 / 4])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error_that_names_the_loop(value: float) -> None:
    def losses(weight: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        return squares(weight, rows, step) + (value if step == 1 else 0)

    loop, _ = loop_of(losses, Context())
    for rows in loop.steps(3):
        loop.descend(rows)
    sentence = "the loss of toy became nan or infinite before step 3; lower the learning rate"
    with pytest.raises(FloatingPointError, match=sentence):
        loop.mean()


# Going on after a kill


def trained(context: Context, captured: str = "") -> dict[str, Any]:
    """A training with all that there is to keep: everything that it leaves.

    Shuffled epochs, Adam's moments, batch norm's buffers, a tensor that the losses change, one that
    the method changes between epochs, a schedule, a step that is skipped, and rows that are told
    while an epoch goes on.
    """
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    for i, weight in enumerate(network.parameters()):
        nn.init.constant_(weight, 0.1 * (i + 1))
        weight.data += torch.linspace(0, 1, weight.numel()).view_as(weight)
    seen, target = torch.zeros(N), torch.ones(())

    def losses(rows: torch.Tensor, step: int) -> tuple[torch.Tensor, ...] | None:
        seen[rows] += 1
        if step == 4 and not captured:
            return None
        loss = (network(X[rows])[:, 0] - target).square().mean()
        return 2 * loss, loss, loss.detach().sqrt()

    loop = Loop(
        "toy",
        losses,
        adam(network.parameters(), 0.1),
        Batches(N, SIZE, 3, "cpu"),
        context,
        {"network": network, "seen": seen, "target": target},
        schedule=lambda step: 2.0 ** -(3 + step),  # the same in the fp32 of a captured one
        captured=captured,
    )
    for steps in loop.epochs(4):
        for rows in steps:
            loop.descend(rows)
            if loop.done % 5 == 0:
                loop.log(step=loop.done, seen=float(seen.sum()))
        loss, root = loop.means()
        loop.log(epoch=loop.epoch, loss=loss, root=root)
        target += loss
    left = {name: value.clone() for name, value in network.state_dict().items()}
    return left | {"seen": seen, "target": target, "history": loop.history, "done": loop.done}


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[name], b[name]) if isinstance(a[name], torch.Tensor) else a[name] == b[name]
        for name in a
    )


def test_a_state_is_offered_before_every_step() -> None:
    context = Recording()
    trained(context)
    assert context.steps == [("step", done, 12) for done in range(1, 13)]
    assert context.events == 2 * 12
    assert sorted(context.states) == ["toy"]


@pytest.mark.parametrize("every", [1, 2, 5])
def test_a_training_goes_on_wherever_it_was_killed(every: int) -> None:
    """Killed at every state that is offered and after every step, in the middle of epochs too."""
    undisturbed = Recording()
    expected = trained(undisturbed)
    for lives in range(1, undisturbed.events + 1):
        resumed, context = killed_and_resumed(trained, lives, every)
        assert equal(resumed, expected), lives
        assert context.history == undisturbed.history, lives
        step = (lives + 1) // 2  # in which it was killed; that of the last state is done again
        assert context.steps[0] == ("step", (step - 1) // every * every + 1, 12), lives


def test_killed_again_it_still_goes_on() -> None:
    expected, states = trained(Recording()), {}
    for lives in (9, 7, 4):  # the second one goes on in step 5, the third in step 8
        with pytest.raises(Killed):
            trained(Recording(lives, states=states))
    last = Recording(states=states)
    assert equal(trained(last), expected)
    assert last.steps[0] == ("step", 9, 12)


def replaying(step: Callable[[torch.Tensor], None], *_: object) -> GraphedStep:
    """Calls in the place of a graph: what is replayed is the call that was captured."""
    return GraphedStep(step, warm_up=lambda call: call(), capture=lambda call: call)


def test_a_captured_training_is_the_plain_one_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code path of an accelerator, with calls in the place of graphs."""
    expected = trained(Recording(), captured=MEASURED)
    plain = Recording()
    assert equal(
        trained(plain, captured=MEASURED), expected
    )  # on the processor nothing is captured
    monkeypatch.setattr(training, "graphed", replaying)
    assert equal(trained(Recording(), captured=MEASURED), expected)
    for lives in range(1, plain.events + 1, 5):
        resumed, context = killed_and_resumed(lambda c: trained(c, captured=MEASURED), lives)
        assert equal(resumed, expected), lives
        assert context.history == plain.history, lives


# Batches


def test_batches_run_through_the_images_in_order_and_wrap_around() -> None:
    batches = Batches(10, 4, None, "cpu")
    passes = [batches[i].tolist() for i in range(4)]
    assert passes == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [0, 1, 2, 3]]
    assert Batches(8, 4, None, "cpu")[3].tolist() == [4, 5, 6, 7]  # no empty batch after a pass


def test_shuffled_batches_cover_every_pass_in_another_order() -> None:
    batches = Batches(10, 4, 0, "cpu")
    passes = [torch.cat([batches[3 * k + i] for i in range(3)]).tolist() for k in range(2)]
    assert all(sorted(order) == list(range(10)) for order in passes)
    assert passes[0] != passes[1]
    resumed = Batches(10, 4, 0, "cpu")
    assert resumed[4].tolist() == batches[4].tolist() == passes[1][4:8]


def test_whole_batches_leave_the_rest_of_a_pass_out_unless_there_is_only_one() -> None:
    batches = Batches(10, 4, 0, "cpu", whole=True)
    assert len(batches) == 2
    assert [len(batches[i]) for i in range(4)] == [4] * 4
    passes = [torch.cat([batches[2 * k + i] for i in range(2)]).tolist() for k in range(20)]
    assert all(len(set(order)) == 8 for order in passes)
    assert set(functools.reduce(operator.iadd, passes, [])) == set(
        range(10)
    )  # what is left over waits for another pass
    few = Batches(3, 4, 0, "cpu", whole=True)
    assert len(few) == 1
    assert sorted(few[0].tolist()) == sorted(few[7].tolist()) == [0, 1, 2]


def test_whole_batches_use_every_image_once_where_they_divide_them() -> None:
    batches = Batches(15, 5, 0, "cpu", whole=True)
    passes = [torch.cat([batches[s] for s in range(e, e + 3)]).tolist() for e in (0, 3, 6)]
    assert all(sorted(order) == list(range(15)) for order in passes)
    assert passes[0] != passes[1]


def test_the_order_of_a_pass_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def counting(n: int, seed: int, epoch: int) -> torch.Tensor:
        drawn.append(epoch)
        return torch.arange(n)

    monkeypatch.setattr(training, "epoch_order", counting)
    batches = Batches(20, 5, 0, "cpu")
    for number in range(8):
        assert len(batches[number]) == 5
    assert drawn == [0, 1]


# The optimiser, and what is checked


def test_adam_is_keras() -> None:
    """Of a gradient of 1e-7, Keras' first step is half the learning rate; torch's nearly all."""
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.full((1,), 1e-7)
    adam([weight], lr=0.1).step()
    assert weight.item() == pytest.approx(-0.05, rel=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": -1}, "epochs is -1; expected 0 or more"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"lr": 0.0}, "lr is 0.0; expected a positive number"),
        ({"lr": math.nan}, "lr is nan; expected a positive number"),
        ({"lr": math.inf}, "lr is inf; expected a positive number"),
    ],
)
def test_parameters_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_training(**{"epochs": 1, "batch_size": 1, "lr": 0.1} | wrong)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nothing_that_is_not_finite_passes(value: float) -> None:
    check_finite(torch.zeros(2, 2), "it")
    sentence = "^the weights became nan or infinite; lower the learning rate$"
    with pytest.raises(FloatingPointError, match=sentence):
        check_finite(torch.tensor([[0.0, value], [1.0, 2.0]]), "the weights")


# What a history tells of assignments


def test_assignments_compared_by_hand() -> None:
    q = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.7, 0.3, 0.0]])
    before, y = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, -1, -1])
    assert compared(q, before, y) == {
        "changed": 0.25,
        "clusters_in_use": 2,  # nothing is assigned to the third: a dying cluster shows
        "labelled_agreement": 0.5,
    }
    nothing = torch.full((4,), -1)
    assert compared(q, nothing, nothing) == {
        "changed": None,
        "clusters_in_use": 2,
        "labelled_agreement": None,
    }
