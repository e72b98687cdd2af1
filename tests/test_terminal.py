"""Terminal output is plain text in a pipe and never cut off."""

import io
import logging

from jaxclf import terminal


def test_a_table_in_a_pipe_is_plain_and_whole(capsys):
    name = "a label of many words " * 20
    terminal.print_table(["label", "F1"], [[name.strip(), "0.5"], ["b", "0.25"]], "Two labels")
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "Two labels"
    assert [line.split("  ")[-1].strip() for line in lines] == ["F1", "0.5", "0.25"]
    assert lines[1].startswith(name.strip())
    assert len({len(line) for line in lines}) == 1  # right-aligned
    assert "\x1b" not in "".join(lines)


def test_control_characters_are_shown_and_not_obeyed(capsys):
    name = "\x1b[2Jlabel\r\n\x07\u202e"
    shown = r"\x1b[2Jlabel\r\n\x07\u202e"
    terminal.print_table([name, "F1"], [[name, "0.5"]], name)
    terminal.print_text(f"{name}\tend")
    terminal.print_message(f"error: {name}")
    with terminal.show_log(logging.INFO):
        logging.getLogger("jaxclf").info("labels: %s", name)
    captured = capsys.readouterr()
    title, header, row, *text = captured.out.splitlines()
    assert [title, header.split()[0], row.split()[0]] == [shown] * 3
    layout = shown.replace(r"\n", "\n")  # a text may have lines
    assert "\n".join(text).startswith(layout)
    assert captured.err == f"error: {layout}\nlabels: {layout}\n"


def test_a_terminal_without_a_character_shows_its_escape(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", newline="\n")
    monkeypatch.setattr("sys.stdout", stream)
    terminal.replace_unencodable()
    terminal.print_text("schön 🙂")
    terminal.print_table(["漢", "F1"], [["🙂", "0.5"]])
    stream.flush()
    lines = stream.buffer.getvalue().decode("cp1252").splitlines()
    assert lines[0] == r"schön \U0001f642"
    assert r"\u6f22" in lines[1]


def test_progress_in_a_pipe_is_a_line_a_minute(capsys, monkeypatch):
    clock = iter([0, 59, 61, 62, 130])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    with (
        terminal.show_log(logging.INFO),
        terminal.show_progress("epoch 1", 4_000, "batches", done=1_000) as advance,
    ):
        for _ in range(4):
            advance(500, "loss 0.5")
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "epoch 1: 2,000 of 4,000 batches loss 0.5",
        "epoch 1: 3,000 of 4,000 batches loss 0.5",
    ]
