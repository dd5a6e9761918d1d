import io
import re

from rich.console import Console

from tenfold.train.display import Display

ROW = {
    "epoch": 1,
    "lr": 0.1,
    "train_loss": 1.5,
    "eval_loss": 1.25,
    "top1": 0.75,
    "seconds": 2.0,
    "data_seconds": 0.5,
}


STATUS = {"3x3": "612", "5x5": "588", "7x7": "359", "macs": "3.59 M/3.00 M"}


def display_on(terminal, width=120):
    display = Display(metric="top1")
    display._console = Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)
    return display


def shown_on(terminal):
    display = display_on(terminal)
    with display.live(epochs=3, steps_per_epoch=10):
        display.step(step=1, epoch=1, loss=1.5, lr=0.1, data_share=0.25)
        display.phase("evaluating")
        display.epoch(ROW)
        display.epoch({**ROW, "epoch": 2})
        display.note("a line that stays")
    return display._console.file.getvalue()


def test_without_a_terminal_there_is_one_plain_line_an_epoch():
    assert shown_on(terminal=False).splitlines() == [
        f"epoch {n}/3, lr 1.00e-01, train loss 1.5000, eval loss 1.2500, top1 0.7500, time 2.0 s, data 25%"
        for n in (1, 2)
    ] + ["a line that stays"]


def test_an_epoch_without_an_evaluation_has_no_metrics():
    row = {name: value for name, value in ROW.items() if name not in ("eval_loss", "top1")}
    for terminal in (False, True):
        display = display_on(terminal)
        with display.live(epochs=3, steps_per_epoch=10):
            display.epoch(row)
            display.epoch({**ROW, "epoch": 2})
        assert display._console.file.getvalue().count("0.7500") == 1


def test_on_a_terminal_there_is_a_bar_and_a_table_with_one_head():
    text = shown_on(terminal=True)
    assert text.count("eval loss") == 1
    assert "2/3" in text
    assert "evaluating" in text
    assert "a line that stays" in text


def test_a_quiet_display_says_nothing(capfd):
    display = Display(metric="top1", shown=False)
    with display.live(epochs=3, steps_per_epoch=10):
        display.epoch(ROW)
    assert capfd.readouterr() == ("", "")


def table_on(width, *rows):
    display = display_on(True, width)
    display._epochs = 30
    for row, status in rows:
        display.epoch(row, status)
    return display._console.file.getvalue().splitlines()


def test_what_methods_show_stands_in_columns_of_the_same_table():
    later = {**ROW, "epoch": 12, "train_loss": 91.0521, "seconds": 1234.5}
    fewer = {**STATUS, "5x5": "0", "macs": "998 k/3.00 M"}
    lines = table_on(100, (ROW, STATUS), (later, fewer))
    assert [len(line) for line in lines] == [len(lines[0])] * 3
    assert len(lines[0]) <= 100
    columns = ["epoch", "lr", "train loss", "eval loss", "top1", "time", "data", *STATUS]
    assert re.split("  +", lines[0].strip()) == columns
    for name in ("lr", "train loss", "top1", "7x7", "macs"):
        end = lines[0].index(name) + len(name)
        assert all(line[end - 1] != " " and line[end : end + 2].strip() == "" for line in lines)
    assert lines[2].endswith("612    0  359   998 k/3.00 M")


def test_a_narrow_terminal_shows_what_matters_most():
    head, row = table_on(70, (ROW, STATUS))
    assert re.split("  +", head.strip()) == ["epoch", "train loss", "eval loss", "top1", *STATUS]
    assert row.split()[:4] == ["1/30", "1.5000", "1.2500", "0.7500"]
    for width in (20, 40, 60):
        lines = table_on(width, (ROW, STATUS))
        assert len(lines) == 2
        assert all(len(line) <= width for line in lines)


def test_a_cell_that_outgrows_its_column_widens_it_and_a_new_width_of_the_terminal_writes_a_new_head():
    wide = {**STATUS, "macs": "a thousand multiply-adds"}
    lines = table_on(120, (ROW, STATUS), (ROW, wide), (ROW, STATUS))
    assert len(lines[2]) == len(lines[3]) > len(lines[1])
    display = display_on(True, 120)
    display.epoch(ROW, STATUS)
    display._console.width = 60
    display.epoch(ROW, STATUS)
    assert display._console.file.getvalue().count("eval loss") == 2


def bar_on(width, status=None):
    display = display_on(True, width)
    with display.live(epochs=30, steps_per_epoch=100):
        display.epoch(ROW, STATUS)
        display.step(step=101, epoch=2, loss=1.5, lr=0.1, data_share=0.25, status=status)
        return display._progress.tasks[0].fields["facts"]


def test_the_bar_shows_what_methods_showed_last_as_far_as_there_is_room():
    everything = "loss 1.5000  3x3 612  5x5 588  7x7 359  macs 3.59 M/3.00 M  lr 1.00e-01  data 25%"
    assert bar_on(140) == everything
    assert bar_on(100) == "loss 1.5000  3x3 612  5x5 588  7x7 359  macs 3.59 M/3.00 M"
    assert bar_on(70) == "loss 1.5000  macs 3.59 M/3.00 M"
    assert bar_on(20) == ""
    assert bar_on(140, {"open": "7 of 9"}) == "loss 1.5000  open 7 of 9  lr 1.00e-01  data 25%"
