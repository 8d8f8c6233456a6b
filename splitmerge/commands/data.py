"""`splitmerge data render`: rendered scenes as a video or as a folder of labelled images."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from splitmerge.errors import InputError
from splitmerge.files import check_outputs, new_folder
from splitmerge.options import height_and_width, positive_integer, positive_number, whole_number

if TYPE_CHECKING:
    from training.data import Dataset

HELP = "Render a data set: the dashcam clip of a drive, or street scenes, with their labels."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    render = actions.add_parser(
        "render", help=HELP, description=HELP, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    render.add_argument("data", help="`drive[:SEED]` (a moving sequence), `streets` (single scenes), `streets:train`")
    render.add_argument("--frames", type=positive_integer, default=200, help="how many")
    render.add_argument("--size", type=height_and_width, default=(512, 1024), help="HxW in pixels")
    render.add_argument("--seed", type=whole_number, help="another seed is another street (0)")
    render.add_argument("--fps", type=positive_number, default=20.0, help="frames per second of the video")
    render.add_argument(
        "--out", type=Path, required=True, help="clip.mp4, or a new folder that is to get images/ and labels/"
    )
    render.add_argument("--labels", type=Path, help="also write the label maps into this folder (with a video)")


def run(arguments: argparse.Namespace) -> int:
    from training.data import is_rendered, open_dataset

    out: Path = arguments.out
    if arguments.labels and not out.suffix:
        raise InputError(f"--labels goes with a video, and {out} is a folder, which gets labels/ of its own.")
    if not is_rendered(arguments.data) and Path(arguments.data).is_dir():
        raise InputError(f"{arguments.data} is a folder, which needs no rendering: give `drive` or `streets`.")
    frames = open_dataset(arguments.data, arguments.size, arguments.frames, arguments.seed, fps=arguments.fps)
    (_write_clip if out.suffix else _write_folder)(frames, arguments)
    height, width = arguments.size
    print(f"{out}: {len(frames)} frames of {arguments.data}, {height}x{width}")
    return 0


def _write_clip(frames: "Dataset", arguments: argparse.Namespace) -> None:
    from runtime.sinks import label_folder, video_file

    height, width = arguments.size
    if height % 2 or width % 2:
        raise InputError(f"A video of {height}x{width} cannot be encoded: give an even height and width.")
    check_outputs([arguments.out], [arguments.labels])
    with ExitStack() as stack:
        write_frame = stack.enter_context(video_file(arguments.out, arguments.size, arguments.fps))
        write_labels = stack.enter_context(label_folder(arguments.labels)) if arguments.labels else None
        for index in tqdm(range(len(frames)), unit="frame", disable=None):
            image_bgr, labels = frames[index]
            write_frame(image_bgr)
            if write_labels:
                write_labels(index, labels)


def _write_folder(frames: "Dataset", arguments: argparse.Namespace) -> None:
    from runtime.sinks import label_folder, write_image

    out: Path = arguments.out
    if out.exists():
        raise InputError(f"{out} exists already: name a new folder, or a video such as clip.mp4.")
    with new_folder(out) as folder, label_folder(folder / "labels") as write_labels:
        (folder / "images").mkdir()
        for index in tqdm(range(len(frames)), unit="frame", disable=None):
            image_bgr, labels = frames[index]
            write_image(folder / "images" / f"{index:06d}.png", image_bgr)
            write_labels(index, labels)
