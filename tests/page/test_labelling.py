"""A text, its labels and their evidence: by mouse, keyboard, screen reader and phone."""

import itertools
import threading
import time

import pytest
from playwright.sync_api import expect
from stub import READY, THRESHOLDS, WORDS, choose, predict

TEXT = "I have not slept stress=0.9 grief=0.5 harm=0.2"
# Eight units of UTF-16, five code points, one or two signs to a reader.
FACES = "\U0001f642\U0001f468\u200d\U0001f469\u0301"
ORDER = ["stress", "grief", "harm", "neutral"]
DECIDES = (
    "A person decides. This page ranks labels for review; "
    "it does not know the person who wrote the text."
)

# Of each piece of text that is seen: the contrast with what lies behind it (WCAG 2), and the text.
CONTRASTS = """() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const painted = (layers) => {
    for (const layer of layers) { pen.fillStyle = layer; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const light = (rgb) => rgb.map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!(own || element.value) || !element.checkVisibility()) continue;
    const layers = ["white"];
    for (let e = element; e; e = e.parentElement) {
      layers.splice(1, 0, getComputedStyle(e).backgroundColor);
    }
    const ink = getComputedStyle(element).color;
    const [a, b] = [painted(layers), painted([...layers, ink])].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, element.textContent || element.value]);
  }
  return found;
}"""
# Whether what has the focus shows it; a file's button is drawn by the browser.
SHOWS_FOCUS = """() => [null, "::after"].some((part) => {
  const style = getComputedStyle(document.activeElement, part);
  return style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 3;
})"""
FOCUSED = "document.activeElement.innerText || document.activeElement.id"


def send(page, text=TEXT):
    page.fill("#text", text)
    page.press("#text", "Control+Enter")


def label(page, text=TEXT):
    send(page, text)
    expect(page.locator("#result")).to_be_visible()


def words(page, name):
    page.locator(".name", has_text=name).click()
    expect(page.locator("#words .found")).to_be_visible()


def marks(page):
    return page.locator(".text mark").evaluate_all(
        "all => all.map(e => [e.className, e.innerText])"
    )


def test_a_text_is_labeled_and_explained_by_keyboard_alone(visit, service):
    page = visit()
    expect(page.locator("#service")).to_have_text("The model tiny is ready, with 4 labels.")
    page.keyboard.press("Tab")
    page.keyboard.type(TEXT)
    page.keyboard.press("Control+Enter")
    status = page.get_by_role("status").filter(has_text="predicted")
    expect(status).to_have_text("2 of 4 labels predicted: stress, grief.")
    assert [asked[:2] for asked in service.asked] == [("/predict", {"text": TEXT})]
    names = page.locator(".name").all_inner_texts()
    assert names == ["stress predicted", "grief predicted", "harm", "neutral"]
    assert page.locator(".number").all_inner_texts() == ["0.900", "0.500", "0.200", "0.100"]
    cuts = [f"threshold {THRESHOLDS[name]:.3f}" for name in ORDER]
    assert page.locator(".threshold").all_inner_texts() == cuts
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))
        assert page.evaluate(SHOWS_FOCUS), reached
    assert reached == ["Show labels", *names, "file"]
    for _ in range(4):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("mark.for", has_text="slept")).to_be_visible()
    stress = page.get_by_role("button", name="stress predicted", exact=True)
    expect(stress).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Enter")
    expect(page.locator("#words")).to_have_count(0)


@pytest.mark.parametrize("width", [1000, 360])
def test_bars_and_ticks_stand_where_the_numbers_say(visit, width):
    page = visit(viewport={"width": width, "height": 900})
    label(page)
    for name, probability in zip(ORDER, [0.9, 0.5, 0.2, 0.1], strict=True):
        meter = page.get_by_role("meter", name=name, exact=True)
        assert float(meter.get_attribute("aria-valuenow")) == probability
        assert meter.get_attribute("aria-valuemin") == "0"
        assert meter.get_attribute("aria-valuemax") == "1"
        value = f"{probability:.3f}, threshold {THRESHOLDS[name]:.3f}"
        predicted = ", predicted" if probability >= THRESHOLDS[name] else ""
        assert meter.get_attribute("aria-valuetext") == value + predicted
        bar, fill, tick = (
            meter.locator(part).bounding_box() if part else meter.bounding_box()
            for part in ("", ".fill", ".tick")
        )
        # The bar has a border of one pixel on each side, and places are rounded to a pixel.
        inner = bar["width"] - 2
        assert inner > 150
        assert fill["x"] - bar["x"] == pytest.approx(1, abs=0.5)
        assert fill["width"] == pytest.approx(inner * probability, abs=1)
        middle = tick["x"] + tick["width"] / 2 - bar["x"] - 1
        assert middle == pytest.approx(inner * THRESHOLDS[name], abs=1)


def test_given_labels_come_first_and_differ_by_more_than_color(visit):
    page = visit()
    # Given at 0.26, while another has 0.4 and is not.
    label(page, "harm=0.26 stress=0.4")
    assert page.locator(".name").all_inner_texts()[0] == "harm predicted"
    assert page.locator(".number").all_inner_texts() == ["0.260", "0.400", "0.100", "0.100"]
    style = "all => all.map(e => getComputedStyle(e).{})".format
    weights = page.locator(".name").evaluate_all(style("fontWeight"))
    assert weights == ["700", "400", "400", "400"]
    fills = page.locator(".fill").evaluate_all(style("backgroundImage"))
    assert fills[0] == "none"
    assert all("gradient" in fill for fill in fills[1:])


def test_no_label_is_no_all_clear_and_the_stage_is_named(visit, service):
    page = visit()
    label(page, "nothing here")
    expect(page.locator("#message")).to_have_text(
        "No label reaches its threshold. This is not an all-clear."
    )
    expect(page.locator("#stage")).to_be_hidden()

    def staged(question):
        answer = predict(question)
        answer["results"][0]["stage"] = "small"
        return answer

    service.predict = staged
    send(page)
    expect(page.locator("#stage")).to_have_text("Decided by the stage small.")
    expect(page.locator("#stale")).to_be_hidden()
    page.locator("#text").press_sequentially(" more")
    expect(page.locator("#stale")).to_be_visible()


def test_words_are_marked_where_they_stand_after_characters_of_two_units(visit, service):
    text = f"{FACES} I have not slept {FACES} week,\n\nbut look fine{FACES}"
    page = visit()
    label(page, text)
    words(page, "stress")
    assert marks(page) == [["for", "not"], ["for", "slept"], ["for", "week"], ["against", "fine"]]
    assert page.locator(".text").evaluate("e => e.textContent") == text
    shares = page.locator(".text mark").evaluate_all(
        "all => all.map(e => +e.style.getPropertyValue('--share'))"
    )
    assert shares == pytest.approx(
        [abs(WORDS[w]) / 0.6 for w in ("not", "slept", "week", "fine")], abs=1e-3
    )
    looks = page.locator(".text mark").evaluate_all(
        "all => all.map(e => getComputedStyle(e))"
        ".map(s => [s.backgroundColor, s.textDecorationStyle])"
    )
    assert len({tuple(look) for look in looks}) == 4
    assert [style for _, style in looks] == ["solid", "solid", "solid", "dashed"]
    assert page.locator(".strongest").inner_text() == (
        "Evidence for: slept +0.600, not +0.300, week +0.150.\nEvidence against: fine \u22120.400."
    )
    assert "0.012" in page.locator(".delta").inner_text()
    # For another label the signs are the opposite; it needs no second question.
    words(page, "harm")
    assert [kind for kind, _ in marks(page)] == ["against", "against", "against", "for"]
    expect(page.locator("#words")).to_have_count(1)
    assert [path for path, *_ in service.asked] == ["/predict", "/explain"]
    assert service.asked[1][1] == {"text": text}


def test_markup_in_texts_labels_and_reasons_is_inert(visit, service):
    bomb = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>"

    def marked(question):
        answer = predict(question)
        answer["labels"] = [bomb]
        answer["thresholds"] = {bomb: 0.5}
        answer["results"] = [{"labels": [bomb], "probabilities": {bomb: 0.9}, "stage": bomb}]
        return answer

    def explained(question):
        value = {"attributions": {bomb: 1.0}, "attention": None}
        words = [{"start": 0, "end": len(question["text"]), **value}]
        return {"labels": [bomb], "words": words, "convergence_delta": {bomb: 0.0}}

    service.ready = (200, {"status": "ready", "labels": [bomb], "model": bomb})
    service.predict, service.explain = marked, explained
    page = visit()
    expect(page.locator("#service")).to_contain_text(bomb)
    label(page, f"{bomb} \u202e text")
    words(page, bomb)
    assert marks(page) == [["for", f"{bomb} \u202e text"]]
    service.refusals.append((500, {"error": bomb}))
    send(page, bomb)
    expect(page.locator("#message")).to_have_text(f"{bomb}.")
    counts = "[window.hit ?? 0, document.images.length, document.scripts.length]"
    assert page.evaluate(counts) == [0, 0, 1]


def test_light_and_dark_are_both_readable(visit, service):
    pages = []
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme)
        table = "text,note\nstress=0.9,x\n" + "calm,y\n" * 30
        choose(page, table)
        page.click("#begin")
        expect(page.locator("#sheet-message")).to_contain_text("31 rows are done")
        label(page, "not slept fine week stress=0.9")
        words(page, "stress")
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 60
        low = [(round(ratio, 2), text[:40]) for ratio, text in contrasts if ratio < 4.5]
        assert not low
        service.refusals.append((422, {"error": "too long"}))
        send(page)
        expect(page.locator("#message")).to_have_text("too long.")
        assert all(ratio >= 4.5 for ratio, _ in page.evaluate(CONTRASTS))
        style = "getComputedStyle(document.body)"
        pages.append(page.evaluate(f"[{style}.color, {style}.backgroundColor]"))
    assert not set(pages[0]) & set(pages[1])


def test_on_a_phone_nothing_is_wider_than_the_screen(visit, service):
    long = "a_label_with_a_very_long_name_that_goes_on_and_on_and_on_and_on"
    names = [long, *(f"label_{index}" for index in range(27))]

    def many(question):
        probs = dict.fromkeys(names, 0.9)
        results = [{"labels": names, "probabilities": probs, "stage": long}] * len(
            question.get("texts", "1")
        )
        return {"labels": names, "thresholds": dict.fromkeys(names, 0.5), "results": results}

    def explained(question):
        values = {"attributions": dict.fromkeys(names, 1.0), "attention": None}
        return {
            "labels": names,
            "words": [{"start": 0, "end": 900, **values}],
            "convergence_delta": dict.fromkeys(names, 0.0),
        }

    service.predict, service.explain = many, explained
    page = visit(viewport={"width": 360, "height": 640}, is_mobile=True, has_touch=True)
    decides = page.get_by_text(DECIDES)
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) == 360
    expect(decides).to_be_in_viewport(ratio=1)
    label(page, "x" * 1000)
    words(page, long)
    table = f"{'h' * 200},text\n1,{'y' * 1000}\n"
    choose(page, table, "n" * 100 + ".csv")
    page.click("#begin")
    expect(page.locator("#sheet-message")).to_contain_text("1 rows are done")
    service.refusals.append((500, {"error": "e" * 300}))
    assert page.evaluate(wide) == 360
    height = page.evaluate("document.documentElement.scrollHeight")
    for top in (0, height // 2, height):
        page.evaluate(f"scrollTo(0, {top})")
        expect(decides).to_be_in_viewport(ratio=1)
    # A row can be hit by a thumb.
    assert all(
        box["height"] >= 44 for box in [row.bounding_box() for row in page.locator(".row").all()]
    )


def test_a_busy_service_is_asked_again_when_it_says(visit, service):
    page = visit()
    service.refusals.append((429, {"error": "the queue is full; ask later"}, 1))
    service.refusals.append((429, {"error": "still full."}, 1))
    label(page)
    expect(page.locator("#stop")).to_be_hidden()
    assert [line for line in page.evaluate("announced") if "model" not in line] == [
        "Reading the text \u2026",
        "the queue is full; ask later. Asking again in 1 s.",
        "Reading the text \u2026",
        "still full. Asking again in 1 s.",
        "Reading the text \u2026",
        "2 of 4 labels predicted: stress, grief.",
    ]
    times = [moment for *_, moment in service.asked]
    assert len(times) == 3
    assert all(later - sooner >= 1 for sooner, later in itertools.pairwise(times))


def test_waiting_can_be_stopped(visit, service):
    page = visit()
    page.clock.install()
    service.refusals.append((429, {"error": "the queue is full"}, 600))
    send(page)
    expect(page.locator("#message")).to_have_text("the queue is full. Asking again in 600 s.")
    page.click("#stop")
    expect(page.locator("#message")).to_have_text("Stopped.")
    assert page.evaluate(FOCUSED) == "text"
    page.clock.fast_forward(700_000)
    label(page)
    service.refusals.append((429, {"error": "the queue is full"}, 600))
    page.click(".name >> nth=0")
    expect(page.locator(".strongest")).to_have_text(
        "the queue is full. Asking again in 600 s. To stop, choose the label again."
    )
    page.click(".name >> nth=0")
    page.clock.fast_forward(700_000)
    words(page, "stress")
    assert marks(page) == [["for", "not"], ["for", "slept"]]
    assert [path for path, *_ in service.asked] == ["/predict"] * 2 + ["/explain"] * 2


def test_a_refusal_is_told_in_the_service_s_words(visit, service):
    page = visit()
    for status in (400, 413, 415, 422, 500, 504):
        service.refusals.append((status, {"error": f"what, where; what to do: {status}"}))
        send(page)
        expect(page.locator("#message")).to_have_text(f"what, where; what to do: {status}.")
        expect(page.locator("#result")).to_be_hidden()
        assert page.input_value("#text") == TEXT
        service.refusals.append((status, "<html>a proxy's page</html>"))
        send(page)
        message = f"The service answers with status {status}."
        expect(page.locator("#message")).to_have_text(message)
    service.refusals.append((200, "half an ans"))
    send(page)
    expect(page.locator("#message")).to_have_text("The service\u2019s response cannot be read.")
    label(page)
    service.refusals.append((504, {"error": "no words today"}))
    page.click(".name >> nth=0")
    expect(page.locator(".strongest")).to_have_text("no words today.")


def test_warming_up_is_said_until_it_is_over(visit, service):
    service.ready = (503, {"error": "the model is warming up"})
    page = visit()
    expect(page.locator("#service")).to_have_text(
        "Not ready yet: the model is warming up. This page checks again every two seconds."
    )
    service.ready = READY
    expect(page.locator("#service")).to_have_text("The model tiny is ready, with 4 labels.")


def test_a_service_that_is_gone_is_looked_for(visit):
    page = visit()
    expect(page.locator("#service")).to_contain_text("is ready")
    page.context.set_offline(True)
    send(page)
    expect(page.locator("#message")).to_have_text("The service does not answer.")
    expect(page.locator("#service")).to_contain_text("does not answer. This page checks again")
    page.context.set_offline(False)
    expect(page.locator("#service")).to_contain_text("is ready")
    label(page)


def test_an_empty_text_is_not_sent(visit, service):
    page = visit()
    for text in ("", " \n\t\u00a0", "\x1c"):
        label(page)
        send(page, text)
        expect(page.locator("#message")).to_have_text("Enter a text first.")
        assert page.evaluate(FOCUSED) == "text"
    assert [question["text"] for _, question, _ in service.asked] == [TEXT] * 3


def test_the_later_of_two_texts_is_shown(visit, service):
    held = threading.Event()

    def slow(question):
        if "slow" in question["text"]:
            held.wait(30)
        return predict(question)

    service.predict = slow
    page = visit()
    send(page, "slow stress=0.9")
    expect(page.locator("#message")).to_have_text("Reading the text …")
    label(page, "harm=0.9")
    held.set()
    time.sleep(0.3)  # for the late answer to arrive
    expect(page.locator("#message")).to_have_text("1 of 4 labels predicted: harm.")
    assert page.locator(".name").first.inner_text() == "harm predicted"


def test_the_page_is_one_for_those_who_hear_it(visit):
    page = visit()
    label(page)
    assert page.get_by_role("heading", level=1).count() == 1
    expect(page.get_by_role("textbox", name="Text")).to_have_count(1)
    expect(page.get_by_label("File", exact=True)).to_have_count(1)
    nameless = """() => [...document.querySelectorAll("button, input, select, textarea, .bar")]
        .filter((e) => !(e.innerText || e.labels?.length || e.ariaLabel || e.hidden)).length"""
    assert page.evaluate(nameless) == 0
    # Neither spelling nor translation sends the text elsewhere.
    assert page.get_attribute("#text", "spellcheck") == "false"
    assert page.get_attribute("html", "translate") == "no"
