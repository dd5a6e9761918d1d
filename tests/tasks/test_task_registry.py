"""Tasks by name, with help for a wrong name."""

import pytest

from tenfold import tasks
from tenfold.errors import UnknownNameError, UsageError


def test_a_task_is_made_by_name():
    assert tasks.list_tasks() == ["classify", "inpaint", "recognize", "segment", "track"]
    assert tasks.create("classify", image_size=8).name == "classify"


def test_an_unknown_task_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown task 'clasify'. Did you mean classify"):
        tasks.create("clasify")


def test_an_unknown_option_suggests_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"unknown option of the task 'classify' 'imagesize'. Did you mean image_size"
    ):
        tasks.create("classify", imagesize=8)


@pytest.mark.parametrize("name", ["classify", "Other"])
def test_a_name_that_is_taken_or_not_in_lower_case_is_refused(name):
    with pytest.raises(UsageError, match="taken or not in lower case"):
        tasks.register(name, reopen=lambda *_: None)
