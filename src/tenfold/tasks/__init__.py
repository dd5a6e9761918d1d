"""Tasks: data, loss and metrics of what a network is for."""

from tenfold.tasks.classification import Classification, classify
from tenfold.tasks.inpainting import Inpainting
from tenfold.tasks.inpainting_creation import inpaint
from tenfold.tasks.instance_creation import track
from tenfold.tasks.instances import VideoInstances
from tenfold.tasks.recognition import Recognition, recognize
from tenfold.tasks.registry import create, list_tasks, register, reopen
from tenfold.tasks.segmentation import Segmentation, segment
from tenfold.tasks.task import Picture, Task

__all__ = [
    "Classification",
    "Inpainting",
    "Picture",
    "Recognition",
    "Segmentation",
    "Task",
    "VideoInstances",
    "classify",
    "create",
    "inpaint",
    "list_tasks",
    "recognize",
    "register",
    "reopen",
    "segment",
    "track",
]
