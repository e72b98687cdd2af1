"""A CSV file is labeled in the browser and returned unchanged, with columns added."""

import csv
import io
import itertools
import random
from collections import deque

import pytest
from playwright.sync_api import expect
from stub import THRESHOLDS, choose, predict, probabilities

LABELS = list(THRESHOLDS)
ADDED = ["labels", *[f"probability_{name}" for name in LABELS]]
PARSED = """async ([text, delimiter]) => {
  const { delimiterOf, records } = await import("/csv.js");
  return [delimiterOf(text), [...records(text, delimiter)].map(({ cells, raw }) => [cells, raw])];
}"""
# A clock on which each look takes a fifth of a millisecond, and the count of pauses.
CLOCK = """(() => {
  let time = 0; performance.now = () => (time += 0.2);
  window.pauses = 0; const later = setTimeout;
  window.setTimeout = (work, wait) => { window.pauses += wait === 0; return later(work, wait); };
})()"""


def says(page, words):
    expect(page.locator("#sheet-message")).to_contain_text(words)


def label(page, words="rows are done"):
    page.click("#begin")
    says(page, words)


def saved(page, escape=True):
    """The name and the bytes of what the button gives. escape: formulas get an apostrophe."""
    page.set_checked("#escape", escape)
    with page.expect_download() as waiting:
        page.click("#download")
    return waiting.value.suggested_filename, waiting.value.path().read_bytes()


def cells(data, delimiter=","):
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=delimiter))


def expected(text):
    """The cells that are added beside a text."""
    if not text.strip():
        return [""] * len(ADDED)
    probs = probabilities(text)
    predicted = [name for name in LABELS if probs[name] >= THRESHOLDS[name]]
    return ["|".join(predicted), *[f"{probs[name]:.6f}" for name in LABELS]]


def sizes(service):
    return [len(question["texts"]) for _, question, _ in service.asked]


def table(count):
    """Rows that can be told apart."""
    return "text,id\n" + "".join(f"stress=0.{row:03},{row}\n" for row in range(count))


def test_the_parser_reads_what_rfc_4180_writes(visit):
    page = visit()
    draw = random.Random(0)
    signs = ["a", "\U0001f642", '"', ",", ";", "\t", "\n", "\r\n", "\r", " ", "'", "\u00e9"]

    def written(cell, delimiter):
        needed = cell.startswith('"') or any(sign in cell for sign in (delimiter, "\n", "\r"))
        return '"' + cell.replace('"', '""') + '"' if needed or draw.random() < 0.3 else cell

    for delimiter, end in itertools.product([",", ";", "\t"], ["\n", "\r\n", "\r"]):
        drawn = ["".join(draw.choices(signs, k=draw.randrange(6))) for _ in range(240)]
        rows = [[f"name {index}" for index in range(4)], *(drawn[at::60] for at in range(60))]
        raws = [delimiter.join(written(cell, delimiter) for cell in row) for row in rows]
        text = end.join(raws) + draw.choice(["", end])
        detected, parsed = page.evaluate(PARSED, [text, delimiter])
        assert detected == delimiter
        assert parsed == [[row, raw] for row, raw in zip(rows, raws, strict=True)]


@pytest.mark.parametrize(
    ("delimiter", "end", "mark"), [(";", "\r\n", "\ufeff"), ("\t", "\n", ""), (",", "\r\n", "")]
)
def test_a_file_is_returned_unchanged_with_columns_added(visit, service, delimiter, end, mark):
    texts = [
        'she said "no" stress=0.9 and left',
        "two lines\nstress=0.5 harm=0.3\r\nand a third",
        f"cells{delimiter}in it grief=0.7",
        "",
        "\U0001f642 \U0001f468\u200d\U0001f469 neutral=0.8 é",
        " \t ",
        *[f"number {index}" for index in range(60)],
        "=1+1 stress=0.6",
    ]
    quoted = ['"' + text.replace('"', '""') + '"' for text in texts]
    rows = [f' {index} {delimiter}{text}{delimiter}"x"' for index, text in enumerate(quoted)]
    rows.append(" short ")  # lacks two cells
    head = f'id{delimiter}text{delimiter}"a ""note"""'
    page = visit()
    choose(page, mark + end.join([head, *rows]) + end, "my.messages.csv")
    word = {";": "semicolons", "\t": "tabs", ",": "commas"}[delimiter]
    says(page, f"my.messages.csv: rows 68, 3 columns separated by {word}.")
    assert page.locator("#rows tr").count() == 20
    expect(page.locator("#more")).to_have_text("and 48 more rows")
    label(page, "All 68 rows are done. Rows without a text, left empty: 3.")
    shown = "all => all.map(row => [...row.cells].map(cell => cell.textContent))"
    first = page.locator("#rows tr").evaluate_all(shown)
    assert first[0] == ["1", texts[0], "stress 0.900"]
    assert first[3] == ["4", "", ""]
    assert first[6] == ["7", "number 0", "none"]
    # Sent as they are, in order, at most 32 at once, and none that is empty.
    assert sizes(service) == [32, 32, 1]
    sent = [text for _, question, _ in service.asked for text in question["texts"]]
    assert sent == [text for text in texts if text.strip()]
    name, data = saved(page, escape=False)
    assert name == "my.messages.labeled.csv"
    # The file's own lines are unchanged, to the character.
    lines = data.decode()
    assert lines.startswith(mark + head + delimiter + delimiter.join(ADDED) + end)
    position = 0
    for row in rows:
        position = lines.index(end + row + delimiter, position) + len(end + row)
    back = cells(data, delimiter)
    assert back[0] == ["id", "text", 'a "note"', *ADDED]
    assert [row[1] for row in back[1:]] == [*texts, ""]
    assert [row[3:] for row in back[1:]] == [expected(text) for text in [*texts, ""]]


def test_the_column_is_chosen_where_none_is_named_text(visit, service):
    page = visit()
    choose(page, "id,message\n1,stress=0.9\n2,harm=0.9\n")
    says(page, "No column is named text; choose the column to label.")
    page.click("#begin")
    says(page, "Choose the column with the texts.")
    assert page.evaluate("document.activeElement.id") == "column"
    assert not service.asked
    page.select_option("#column", label="message")
    assert page.locator("#rows td:nth-child(2)").all_inner_texts() == ["stress=0.9", "harm=0.9"]
    label(page)
    back = cells(saved(page)[1])
    assert [row[:3] for row in back] == [
        ["id", "message", "labels"],
        ["1", "stress=0.9", "stress"],
        ["2", "harm=0.9", "harm"],
    ]


def test_a_file_is_labeled_by_keyboard_alone(visit):
    page = visit()
    choose(page, table(3))
    says(page, "rows 3")
    page.locator("#file").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    says(page, "All 3 rows are done.")
    # The focus has gone to what there is to do next.
    with page.expect_download() as waiting:
        page.keyboard.press("Enter")
    assert len(cells(waiting.value.path().read_bytes())) == 4


def test_finished_rows_outlive_an_error(visit, service):
    page = visit()
    choose(page, table(100))
    service.refuse = lambda _: None if len(service.asked) < 3 else (500, {"error": "it failed"})
    label(page, "it failed. 64 of 100 rows are done and kept.")
    name, data = saved(page)
    assert name == "messages.part.csv"
    part = cells(data)
    assert [row[1] for row in part[1:]] == [str(index) for index in range(64)]
    page.context.set_offline(True)
    label(page, "The service does not answer. 64 of 100 rows are done and kept.")
    page.context.set_offline(False)
    service.refuse, service.asked = lambda _: None, []
    assert page.inner_text("#begin") == "Label the rest"
    label(page)
    assert sizes(service) == [32, 4]
    name, data = saved(page)
    complete = cells(data)
    assert name == "messages.labeled.csv"
    assert len(complete) == 101
    assert complete[:65] == part
    assert [row[2:] for row in complete[1:]] == [expected(row[0]) for row in complete[1:]]


def test_a_busy_service_is_waited_for_and_left(visit, service):
    page = visit()
    choose(page, table(70))
    busy = (429, {"error": "the queue is full; ask again later"}, 1)
    service.refusals = deque([busy])
    label(page, "All 70 rows are done.")
    message = "the queue is full; ask again later. Asking again in 1 s."
    assert page.evaluate("announced").count(message) == 1
    assert sizes(service) == [32, 32, 32, 6]
    assert service.asked[1][2] - service.asked[0][2] >= 1
    choose(page, table(70), "again.csv")
    says(page, "again.csv: rows 70")
    service.asked = []
    service.refuse = lambda _: None if len(service.asked) == 1 else (429, {"error": "full"}, 600)
    page.click("#begin")
    says(page, "full. Asking again in 600 s.")
    assert page.evaluate("document.activeElement.id") == "cancel"
    page.keyboard.press("Enter")
    says(page, "Stopped. 32 of 70 rows are done and kept.")
    assert page.inner_text("#download") == "Download the first 32 rows"
    assert len(cells(saved(page)[1])) == 33
    assert len(service.asked) == 2


def test_texts_that_the_service_does_not_read_are_named_and_the_others_labeled(visit, service):
    def refuse(question):
        texts = question["texts"]
        if len(texts) > 8:
            return 413, {"error": "send fewer"}
        if any("stress=0.01" in text for text in texts):  # rows 11 to 20
            return 422, {"error": "too long"}
        return None

    service.refuse = refuse
    page = visit()
    choose(page, table(50))
    label(page, "All 50 rows are done. Rows refused, left empty: 10; row 11: too long.")
    expect(page.locator("#share")).to_have_text("50 of 50 rows, refused 10")
    back = cells(saved(page)[1])[1:]
    assert [row[1] for row in back] == [str(index) for index in range(50)]
    for index, row in enumerate(back):
        assert row[2:] == ([""] * 5 if 10 <= index < 20 else expected(row[0]))


def test_a_malformed_file_is_named_and_may_be_chosen_again(visit):
    page = visit()
    for content, reason in (
        ('text,id\n"never closed,1\nb,2\n', "Line 2: a quote is never closed."),
        ('text\n"a" b\n', "Line 2: there are characters between a closing quote and"),
        ('id,text\n1,"a\nb"\n2,yes, but\n', "Line 4: 3 cells where the first line has 2."),
        ("text\n", "The file has no rows below its header."),
        ("", "The file has no rows below its header."),
        ("text\ncaf\u00e9\n".encode("latin-1"), "The file is not UTF-8."),
        ("text\na\n".encode("utf-16"), "The file is not UTF-8."),
    ):
        choose(page, content)
        says(page, reason)
        expect(page.locator("#chosen")).to_be_hidden()
        choose(page, table(1))
        says(page, "rows 1")
    label(page)


def test_an_existing_column_is_not_written_twice(visit):
    page = visit()
    choose(page, "text,probability_harm\na,0.1\n")
    label(page, "The file has a column probability_harm already. Rename it")
    expect(page.locator("#download")).to_be_hidden()


def test_results_of_two_models_are_not_mixed(visit, service):
    def changing(question):
        answer = predict(question)
        if len(service.asked) > 1:
            answer["labels"] = answer["labels"][::-1]
        return answer

    service.predict = changing
    page = visit()
    choose(page, table(40))
    label(page, "has its model changed? 32 of 40 rows are done and kept.")
    assert len(cells(saved(page)[1])) == 33


def test_no_cell_that_is_added_is_computed_by_a_spreadsheet(visit, service):
    names = ["=cmd|' /C calc'!A0", 'a "name", quoted', "+1", "-1", "@x", "<b>x</b>"]

    def hostile(question):
        results = [
            {"labels": [names[index]], "probabilities": dict.fromkeys(names, 0.5), "stage": None}
            for index in range(len(names))
        ]
        return {"labels": names, "thresholds": dict.fromkeys(names, 0.5), "results": results}

    service.predict = hostile
    page = visit()
    choose(page, "text\n" + "=1+1\n" * 6)
    label(page)
    back = cells(saved(page)[1])
    assert back[0] == ["text", "labels", *[f"probability_{name}" for name in names]]
    assert [row[0] for row in back[1:]] == ["'=1+1"] * 6
    back = cells(saved(page, escape=False)[1])
    assert [row[0] for row in back[1:]] == ["=1+1"] * 6  # the file's own, untouched
    safe = [f"'{name}" if name[0] in "=+-@" else name for name in names]
    assert [row[1] for row in back[1:]] == safe
    assert all(row[2:] == ["0.500000"] * 6 for row in back[1:])
    assert page.evaluate("document.querySelectorAll('#rows b').length") == 0


def test_the_download_has_no_formula_and_says_so(visit):
    page = visit()
    rows = ['=1+1,-5,"a, b"', "stress=0.9,+1e3,@x", "plain,'=1,-2-3"]
    choose(page, "\r\n".join(["text,=n,c", *rows]) + "\r\n")
    expect(page.locator("#escaping")).to_be_hidden()
    label(page)
    expect(page.locator("#escaping")).to_contain_text("get an apostrophe")
    expect(page.locator("#escape")).to_be_checked()
    data = saved(page)[1]
    assert [row[:3] for row in cells(data)] == [
        ["text", "'=n", "c"],
        ["'=1+1", "-5", "a, b"],
        ["stress=0.9", "+1e3", "'@x"],
        ["plain", "'=1", "'-2-3"],
    ]
    assert data.count(b"\r\n") == 4


def test_markup_in_a_file_is_inert(visit):
    bomb = "<img src=x onerror='window.hit=1'>"
    page = visit()
    choose(page, f"{bomb},text\nx,{bomb} stress=0.9\n", f"{bomb}.csv")
    label(page)
    assert page.locator("#rows td:nth-child(2)").inner_text() == f"{bomb} stress=0.9"
    assert page.locator("#column option").first.inner_text() == bomb
    assert page.evaluate("[window.hit ?? 0, document.images.length]") == [0, 0]


def test_50_000_rows_do_not_freeze_the_page(visit, service, tmp_path):
    file = tmp_path / "many.csv"
    file.write_text("id,text\n" + "".join(f"{row},stress=0.9\n" for row in range(50_000)))
    page = visit()
    page.evaluate(CLOCK)
    page.set_input_files("#file", file)
    says(page, "rows 50,000")
    # The clock is looked at after each row, and every 30 ms others have their turn.
    assert page.evaluate("pauses") > 50_000 / 200
    page.click("#begin")
    expect(page.locator("#share")).not_to_have_text("0 of 50,000 rows")
    page.locator("#text").press_sequentially("typed meanwhile")
    page.click("#cancel")
    says(page, "Stopped.")
    assert page.input_value("#text") == "typed meanwhile"
    part = cells(saved(page)[1])[1:]
    # The last question may have been left unanswered.
    assert sum(sizes(service)) - len(part) in (0, 32)
    assert part == [[str(row), "stress=0.9", *expected("stress=0.9")] for row in range(len(part))]


def test_leaving_with_unsaved_work_asks_first(visit):
    page = visit()
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    choose(page, table(3))
    says(page, "rows 3")
    page.reload()
    assert asked == []
    choose(page, table(3))
    label(page)
    page.reload()
    assert asked == ["beforeunload"]
    expect(page.locator("#chosen")).to_be_hidden()
    choose(page, table(3))
    label(page)
    saved(page)
    page.reload()
    assert asked == ["beforeunload"]
