import io

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


def shown_on(terminal):
    display = Display(metric="top1")
    display._console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
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
