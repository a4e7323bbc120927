"""The page in a browser: its numbers are those of explain, and it answers hands and keys."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import xent
from xent.explanation.html import as_body
from xent.explanation.page.assembly import assembled
from xent.explanation.page.state import state_of

SHOWN = """() => [...document.querySelectorAll("[data-name]")].filter(e => e.dataset.value)
    .map(e => [e.dataset.name, e.dataset.class ?? e.dataset.place ?? null, e.dataset.value])"""
PETS = ("cat", "dog", "bird")
CONTRAST = Path(__file__).parent / "contrast.js"


def page_of(told: xent.Explanation) -> str:
    return assembled(state_of(told), as_body(told.blocks()))


def default_page() -> str:
    return assembled(None, "")


def numbers(visit) -> dict[tuple[str, str | None], float]:
    """The last of each number by name and place: panels that show one twice agree, see below."""
    found: dict[tuple[str, str | None], float] = {}
    for name, place, text in visit.page.evaluate(SHOWN):
        value = float(text)
        known = found.setdefault((name, place), value)
        assert known == value or (math.isnan(known) and math.isnan(value)), name
    return found


def expected(told: xent.Explanation, name: str, place: str | None) -> float | None:
    """What explain says of a number of the page; None if the page alone knows it."""
    data, state = told.to_dict(), state_of(told)
    room, field = name.split(".")
    if room == "page" or (room in ("batch", "positions") and not state["batch"]):
        return None
    if room == "classes":
        named = {c["name"]: c for c in data["row"]["classes"]}
        return float(named[state["names"][int(place)]][field])
    if room == "rest":
        whole = data["row"]["rest"] and len(state["names"]) == len(data["row"]["classes"])
        return float(data["row"]["rest"][field]) if whole else None
    source = {"row": data["row"], "batch": data["batch"]}.get(room)
    source = data["batch"]["positions"][int(place)] if source is None else source
    return None if source[field] is None else float(source[field])


def agrees(value: float, truth: float, name: str) -> bool:
    if math.isnan(truth) or math.isinf(truth):
        return value == truth or (math.isnan(value) and math.isnan(truth))
    rounding = 1e-14 if name == "row.gradient_sum" else 1e-300
    return abs(value - truth) <= 1e-9 * abs(truth) + rounding


def double(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def grid() -> dict[str, xent.Explanation]:
    torch.manual_seed(5)
    x, many = 3 * torch.randn(4, 3, dtype=torch.float64), torch.randn(3, 50, dtype=torch.float64)
    soft = torch.rand(4, 3, dtype=torch.float64).softmax(1)
    cases = {
        "certain": xent.explain(double([30, 0, -2]), torch.tensor([0])),
        "overflow": xent.explain(double([1000, 990, 980]), torch.tensor([1])),
        "infinite": xent.explain(double([math.inf, 0, 1]), torch.tensor([1])),
        "masked": xent.explain(double([1, -math.inf, 0]), torch.tensor([0])),
        "ignored": xent.explain(x, torch.tensor([0, 1, -100, -100]), row=2),
        "all ignored": xent.explain(x[:2], torch.tensor([-100, -100])),
        "many classes": xent.explain(many, torch.tensor([3, 4, 7]), top=5, label_smoothing=0.1),
        "many, weighted": xent.explain(
            many, torch.tensor([3, 4, 7]), torch.rand(50).double(), top=5, label_smoothing=0.1
        ),
        "many, soft": xent.explain(many, torch.rand(3, 50).double().softmax(1), row=1),
        "binary": xent.explain_binary(
            double(0.3, -1, 2), double(1, 0, 0.3), pos_weight=double(2), label_smoothing=0.1, row=2
        ),
        "sequence": xent.explain(
            torch.randn(2, 5, 3, dtype=torch.float64), torch.randint(0, 5, (2, 3)), row=(1, 2),
            sample_weight=torch.rand(2, 3).double(),
        ),
    }  # fmt: skip
    for kind, target in (("index", torch.tensor([0, 1, -100, 2])), ("soft", soft)):
        for weight in (None, double(0.5, 2, 1)):
            for smoothing in (0.0, 0.1):
                for reduction in ("mean", "sum"):
                    name = f"{kind}, {'weighted' if weight is not None else 'plain'}, {smoothing}"
                    options = {"label_smoothing": smoothing, "reduction": reduction, "row": 1}
                    cases[f"{name}, {reduction}"] = xent.explain(x, target, weight, **options)
    return cases


@pytest.mark.parametrize("told", [pytest.param(t, id=name) for name, t in grid().items()])
def test_every_number_is_the_one_of_explain(told, browser_page) -> None:
    visit = browser_page(page_of(told))
    compared = 0
    for (name, place), value in numbers(visit).items():
        truth = expected(told, name, place)
        if truth is not None:
            compared += 1
            assert agrees(value, truth, name), (name, place, value, truth)
    assert compared > 15


def test_it_opens_on_the_gradient_of_the_first_question(browser_page) -> None:
    visit = browser_page(default_page())
    found = numbers(visit)
    assert [found["classes.gradient", str(c)] for c in range(3)] == pytest.approx([-0.9, 0.7, 0.2])


@pytest.mark.parametrize(
    ("key", "logit"),
    [("ArrowUp", -0.3), ("ArrowDown", -0.5), ("PageUp", 0.6), ("PageDown", -1.4), ("End", 10)],
)
def test_keys_move_a_logit_and_everything_follows(key, logit, browser_page) -> None:
    visit = browser_page(default_page())
    slider = visit.page.get_by_role("slider", name="logit of dog")
    slider.focus()
    visit.page.keyboard.press(key)
    visit.settle()
    assert float(slider.get_attribute("aria-valuenow")) == pytest.approx(logit)
    logits = double(math.log(0.1), logit, math.log(0.2))
    told = xent.explain(logits, torch.tensor(0))
    for c in range(3):
        assert numbers(visit)["classes.p", str(c)] == pytest.approx(told.row.classes[c].p, rel=1e-9)


def test_dragging_moves_a_logit(browser_page) -> None:
    visit = browser_page(default_page())
    slider = visit.page.get_by_role("slider", name="logit of bird")
    box = slider.bounding_box()
    visit.page.mouse.move(box["x"] + 5, box["y"] + box["height"] / 2)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + 5, box["y"] + box["height"] / 4, steps=5)
    visit.page.mouse.up()
    visit.page.mouse.move(box["x"] + 5, box["y"])  # no longer held: nothing moves
    visit.settle()
    assert numbers(visit)["classes.logit", "2"] == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize(
    ("typed", "logit"), [("2,5", 2.5), ("−3", -3), ("1e3", 1000), ("-inf", -math.inf)]
)
def test_typed_logits_are_read_as_people_write_them(typed, logit, browser_page) -> None:
    visit = browser_page(default_page())
    field = visit.page.get_by_role("textbox", name="logit of dog")
    field.fill(typed)
    field.press("Enter")
    visit.settle()
    assert numbers(visit)["classes.logit", "1"] == logit


def test_what_is_no_number_is_marked_and_changes_nothing(browser_page) -> None:
    visit = browser_page(default_page())
    before = numbers(visit)
    field = visit.page.get_by_role("textbox", name="logit of dog")
    field.fill("much")
    field.press("Enter")
    visit.settle()
    assert field.get_attribute("aria-invalid") == "true"
    assert str(numbers(visit)) == str(before)  # as text: a NaN is one


def test_presets(browser_page) -> None:
    visit = browser_page(default_page())
    losses = {}
    for button in visit.page.locator("[data-preset]").all():
        button.click()
        visit.settle()
        losses[button.text_content()] = numbers(visit)["row.loss", None]
    assert losses["p = (0.1, 0.7, 0.2)"] == pytest.approx(-math.log(0.1))
    assert losses["a tie"] == pytest.approx(math.log(3))
    assert losses["overflow"] == pytest.approx(10.0000454, rel=1e-6)


def test_a_soft_label_keeps_its_sum(browser_page) -> None:
    visit = browser_page(default_page())
    visit.page.check("#soft")
    visit.page.get_by_role("slider", name="share of the label of bird").fill("0.5")
    visit.settle()
    found = numbers(visit)
    assert found["page.label_sum", None] == pytest.approx(1)
    # Cat had 0.7, dog and bird 0.15 each: of the half that is left they keep their proportions.
    labels = double(0.7, 0.15, 0.85) * double(0.5 / 0.85, 0.5 / 0.85, 0.5 / 0.85)
    told = xent.explain(double(0.1, 0.7, 0.2).log(), labels)
    for c in range(3):
        assert found["classes.gradient", str(c)] == pytest.approx(told.row.classes[c].gradient)


def test_the_guess_comes_before_the_answer(browser_page) -> None:
    visit = browser_page(default_page())
    table = visit.page.locator(".pairs")
    assert not table.is_visible()
    visit.page.click('[data-guess="stays"]')
    visit.settle()
    assert table.is_visible()
    assert "dog falls" in visit.page.locator(".guess .verdict").text_content()
    raised = double(math.log(0.1), math.log(0.7) + 0.1, math.log(0.2)).log_softmax(0)
    reason = visit.page.locator(".guess .reason").text_content()
    assert f"the loss from 2.3026 to {-raised[0].item():.4f}" in reason


def test_another_label_is_another_question(browser_page) -> None:
    visit = browser_page(default_page())
    visit.page.click('[data-guess="falls"]')
    visit.page.get_by_role("radio", name="the label is dog").check()
    visit.settle()
    assert not visit.page.locator(".after-guess").first.is_visible()
    assert "what does the logit of bird" in visit.page.locator(".guess").text_content()


def test_a_smoothed_label_is_read_everywhere(browser_page) -> None:
    told = xent.explain(double(0.1, 0.7, 0.2).log(), torch.tensor(0), label_smoothing=0.5)
    visit = browser_page(page_of(told))
    visit.page.click('[data-guess="falls"]')
    assert "its share of the label is 0.1667" in visit.page.locator(".verdict").text_content()


def test_the_scale_stays_as_long_as_a_logit_is_held(browser_page) -> None:
    visit = browser_page(default_page())
    visit.page.get_by_role("textbox", name="logit of cat").fill("1000")
    visit.page.keyboard.press("Tab")
    visit.settle()
    slider = visit.page.get_by_role("slider", name="logit of cat")
    box = slider.bounding_box()
    place = (box["x"] + 5, box["y"] + box["height"] / 4)
    visit.page.mouse.move(*place)
    visit.page.mouse.down()
    for _ in range(3):
        visit.page.mouse.move(place[0], place[1] + 1)
        visit.settle()
        visit.page.mouse.move(*place)
        visit.settle()
    assert numbers(visit)["classes.logit", "0"] == pytest.approx(500, abs=20)
    visit.page.mouse.up()


def test_removing_a_row_leaves_the_one_looked_at(browser_page) -> None:
    visit = batch_of_three(browser_page)
    visit.page.get_by_role("radio", name="look at row 2").check()
    visit.settle()
    before = numbers(visit)["row.loss", None]
    visit.page.get_by_role("button", name="remove row 0").click()
    visit.settle()
    assert numbers(visit)["row.loss", None] == before
    assert visit.page.evaluate("document.activeElement.name") == "current"


def test_steps_of_descent_are_those_of_explain(browser_page) -> None:
    visit = browser_page(default_page())
    visit.page.click(".guess .quiet")
    told = xent.explain(double(0.1, 0.7, 0.2).log(), torch.tensor(0), steps=3)
    for step in told.row.descent.steps[1:]:
        visit.page.click('[data-do="step"]')
        visit.settle()
        p = [numbers(visit)["classes.p", str(c)] for c in range(3)]
        assert p == pytest.approx(list(step.p), rel=1e-9)
    visit.page.click('[data-do="back"]')
    visit.settle()
    assert numbers(visit)["classes.p", "0"] == pytest.approx(0.1)


def test_play_walks_and_stops(browser_page) -> None:
    visit = browser_page(default_page())
    visit.page.click(".guess .quiet")
    play = visit.page.locator('[data-do="play"]')
    play.click()
    visit.page.wait_for_function(
        "() => /^[3-9] steps/.test(document.querySelector('.count').textContent)"
    )
    play.click()
    stopped = visit.page.locator(".count").text_content()
    visit.page.wait_for_timeout(400)
    assert visit.page.locator(".count").text_content() == stopped


def batch_of_three(browser_page):
    told = xent.explain(
        double([1.2, 3.1, 1.9], [0, 2, 0], [1, 1, 4]), torch.tensor([0, 1, 2]), class_names=PETS
    )
    return browser_page(page_of(told))


def test_the_mean_of_means_is_shown_to_be_wrong(browser_page) -> None:
    visit = batch_of_three(browser_page)
    found = numbers(visit)
    losses = [found["positions.loss", str(i)] for i in range(3)]
    wrong = (losses[0] + (losses[1] + losses[2]) / 2) / 2
    assert found["page.mean_of_means", None] == pytest.approx(wrong)
    assert found["page.mean", None] == pytest.approx(sum(losses) / 3)


def test_ignoring_every_row_gives_nan_and_says_why(browser_page) -> None:
    visit = batch_of_three(browser_page)
    for box in visit.page.get_by_role("checkbox", name="ignore row").all():
        box.check()
    visit.settle()
    assert math.isnan(numbers(visit)["batch.value", None])
    assert "nothing counts" in visit.page.locator('[data-panel="batch"]').text_content()


def test_a_permalink_holds_the_whole_state(browser_page) -> None:
    visit = batch_of_three(browser_page)
    visit.page.check("#weighted")
    visit.page.get_by_role("textbox", name="weight of dog").fill("2.5")
    visit.page.keyboard.press("Tab")
    visit.page.get_by_role("checkbox", name="ignore row 2").check()
    visit.page.locator("#smoothing").fill("0.2")
    visit.settle()
    visit.page.click('[data-do="link"]')
    fragment = visit.page.evaluate("location.hash")
    again = browser_page(default_page(), fragment=fragment)
    assert json.dumps(str(numbers(again))) == json.dumps(str(numbers(visit)))


@pytest.mark.parametrize(
    "fragment",
    ["#", "#nonsense", "#%7B%7D", "#%7B%22v%22%3A1%7D", "#" + "a" * 30000, "#%E0%A4%A"],
)
def test_an_address_that_holds_no_state_is_passed_over(fragment, browser_page) -> None:
    visit = browser_page(default_page(), fragment=fragment)
    assert numbers(visit)["row.loss", None] == pytest.approx(-math.log(0.1))


@pytest.mark.parametrize(
    "name", ["index, weighted, 0.1, mean", "soft, weighted, 0.1, sum", "binary"]
)
def test_copied_python_runs_and_agrees(name, browser_page) -> None:
    told = grid()[name]
    visit = browser_page(page_of(told))
    visit.page.click('[data-do="python"]')
    space: dict[str, object] = {}
    exec(visit.page.locator("textarea").input_value(), space)
    assert float(space["loss"]) == pytest.approx(told.batch.value, rel=1e-6)


def test_a_number_says_how_it_came_about(browser_page) -> None:
    visit = browser_page(default_page())
    visit.page.hover('[data-stage="p"] [data-name="classes.p"][data-class="1"]')
    assert visit.page.locator("#how").text_content() == "1 / 1.4286 = 0.7"
    lit = visit.page.evaluate(
        "() => [...document.querySelectorAll('.lit')].map(e => e.dataset.class)"
    )
    assert set(lit) == {"1"}
    assert len(lit) > 8  # in every panel


@pytest.mark.parametrize("mistake", ["double", "axis", "half", "ignored"])
def test_mistakes_change_the_loss(mistake, browser_page) -> None:
    visit = browser_page(default_page())
    visit.page.click(f'[data-mistake="{mistake}"]')
    visit.settle()
    wrong = numbers(visit)["page.loss_wrong", None]
    twice = torch.tensor([0.1, 0.7, 0.2], dtype=torch.float64)
    truth = {
        "double": -twice.log_softmax(0)[0].item(), "axis": 0.0,
        "half": -math.log(0.1), "ignored": math.nan,
    }[mistake]  # fmt: skip
    assert wrong == pytest.approx(truth, rel=2e-3, nan_ok=True)


def test_the_gradient_through_two_softmaxes_is_autograds(browser_page) -> None:
    visit = browser_page(default_page())
    logits = double(0.1, 0.7, 0.2).log().requires_grad_()
    torch.nn.functional.cross_entropy(logits.softmax(0), torch.tensor(0)).backward()
    shown = numbers(visit)["page.gradient_wrong", None]
    assert shown == pytest.approx(logits.grad.abs().max().item())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_numerics_round_as_torch_does(dtype, browser_page) -> None:
    visit = browser_page(default_page())
    visit.page.select_option("#dtype", dtype)
    visit.settle()
    held = torch.tensor([0.1, 0.7, 0.2], dtype=torch.float64).log().to(getattr(torch, dtype))
    for c, value in enumerate(held.double().tolist()):
        assert numbers(visit)["page.numeric_logit", str(c)] == value


def test_naive_half_precision_breaks_where_it_must(browser_page) -> None:
    visit = browser_page(default_page())
    visit.page.select_option("#dtype", "float16")
    visit.page.locator("#offset").fill("12")
    visit.settle()
    assert not math.isfinite(numbers(visit)["page.numeric_loss", None])
    visit.page.select_option("#way", "stable")
    visit.settle()
    assert numbers(visit)["page.numeric_loss", None] == pytest.approx(-math.log(0.1), rel=0.01)


@pytest.mark.parametrize("width", [360, 768, 1280, 3840])
def test_no_width_makes_the_page_scroll_sideways(width, browser_page) -> None:
    torch.manual_seed(1)
    told = xent.explain(
        torch.randn(6, 40), torch.arange(6), class_names=[f"class {c} " * 4 for c in range(40)]
    )
    visit = browser_page(page_of(told), width=width)
    visit.page.click(".guess .quiet")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def test_everything_can_be_reached_by_keyboard_and_has_a_name(browser_page) -> None:
    visit = batch_of_three(browser_page)
    nameless = visit.page.evaluate(
        """() => [...document.querySelectorAll("#page :is(button, input, select, [role=slider])")]
        .filter(e => e.offsetParent && !(e.ariaLabel || e.textContent.trim() || e.labels?.length))
        .map(e => e.outerHTML)"""
    )
    assert nameless == []
    skipped = visit.page.evaluate(
        """() => [...document.querySelectorAll("#page button, #page input, [role=slider]")]
        .filter(e => e.offsetParent && e.tabIndex < 0 && e.getAttribute("role") !== "tab").length"""
    )
    assert skipped == 0


def test_without_scripts_the_static_rendering_is_seen(browser_page) -> None:
    told = xent.explain(double([2, 1, 0]), torch.tensor([0]), class_names=PETS)
    visit = browser_page(page_of(told), scripts=False)
    assert visit.page.locator("#static").is_visible()
    assert not visit.page.locator("#page").is_visible()
    assert "the label is cat" in visit.page.locator("#static").text_content()


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_background(dark, browser_page) -> None:
    """WCAG AA: 4.5 to 1 for every text that is seen."""
    visit = batch_of_three_in(browser_page, dark)
    visit.page.click(".guess .quiet")
    weak = visit.page.evaluate(CONTRAST.read_text())
    assert weak == []


def batch_of_three_in(browser_page, dark):
    told = xent.explain(double([1.2, 3.1, 1.9], [0, 2, 0]), torch.tensor([0, 1]), class_names=PETS)
    return browser_page(page_of(told), dark=dark)
