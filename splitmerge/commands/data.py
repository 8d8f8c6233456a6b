"""`splitmerge data`: `render` scenes as a video or as a folder of labelled images; `check` a data set on disk."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from splitmerge.errors import InputError, VerificationError
from splitmerge.files import check_outputs, new_file, new_folder, write_json
from splitmerge.options import height_and_width, positive_integer, positive_number, whole_number

if TYPE_CHECKING:
    from training.data import Dataset
    from training.datasets.check import SplitReport
    from training.datasets.known import Located

HELP = "Render a data set, or check one on disk."
_RENDER = "Render a data set: the dashcam clip of a drive, or street scenes, with their labels."
_CHECK = "Read every file of a data set and tell what is missing, mislabelled or unreadable."
_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    render = actions.add_parser(
        "render", help=_RENDER, description=_RENDER, formatter_class=argparse.ArgumentDefaultsHelpFormatter
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
    render.set_defaults(action=_render)
    check = actions.add_parser("check", help=_CHECK, description=_CHECK)
    check.add_argument("data", help="DIR, KIND:DIR or KIND:DIR:SPLIT, as training takes them; all splits where none is")
    check.add_argument("--json", type=Path, metavar="FILE", help="write all that was found as JSON")
    check.add_argument("--sheet", type=Path, metavar="FILE", help="PNG with samples, their labels and a legend")
    check.add_argument("--samples", type=positive_integer, default=12, metavar="N", help="how many on the sheet (12)")
    check.set_defaults(action=_check)


def run(arguments: argparse.Namespace) -> int:
    code: int = arguments.action(arguments)
    return code


def _render(arguments: argparse.Namespace) -> int:
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


def _check(arguments: argparse.Namespace) -> int:
    from training.data import locate_one
    from training.datasets.check import check_splits

    check_outputs([arguments.json, arguments.sheet])
    located = locate_one(arguments.data)
    with tqdm(unit="image", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        reports = check_splits(located, progress)
    _print_reports(located, reports)
    names = [entry.name for entry in located.layout.classes]
    if arguments.json:
        facts = {"data": arguments.data, "kind": located.layout.name, "root": str(located.root), "classes": names}
        write_json(arguments.json, facts | {"splits": [report.facts(names) for report in reports]})
    if arguments.sheet:
        _write_sheet(arguments.sheet, arguments.samples, located, reports)
    problems = sum(len(report.problems) for report in reports)
    if problems:
        raise VerificationError(
            f"{arguments.data} has {problems} problem(s) in {sum(report.images for report in reports)} images: correct "
            "what is listed above, or take those files away."
        )
    return 0


def _print_reports(located: "Located", reports: "list[SplitReport]") -> None:
    layout = located.layout
    print(f"{layout.name} in {located.root}: {layout.title}, {len(layout.classes)} classes")
    print(f"{'split':12}{'images':>9}{'usable':>9}  sizes (height x width)")
    for report in reports:
        sizes = [f"{size} ({count})" for size, count in report.sizes.most_common(3)]
        more = f" and {len(report.sizes) - 3} more" if len(report.sizes) > 3 else ""
        print(f"{report.split:12}{report.images:9}{len(report.usable):9}  {', '.join(sizes)}{more}")
    pixels = np.sum([report.pixels for report in reports], axis=0)
    images = np.sum([report.images_with for report in reports], axis=0)
    total = max(1, int(pixels.sum()))
    print(f"{'class':28}{'pixels':>9}{'images':>9}")
    for index, entry in enumerate(layout.classes):
        print(f"{index:3} {entry.name:24}{pixels[index] / total:9.3%}{images[index]:9}")
    print(f"    {'ignored':24}{pixels[255] / total:9.3%}{images[255]:9}")
    never = [entry.name for index, entry in enumerate(layout.classes) if not images[index]]
    if never:
        print(f"never labelled: {', '.join(never)}")
    for report in reports:
        for note in report.notes:
            print(f"{report.split}: {note}")
        if report.unlabelled:
            print(f"{report.split}: {report.unlabelled} of the images have no pixel with a class")
    problems = [(report.split, problem) for report in reports for problem in report.problems]
    for split, problem in problems[:_SHOWN]:
        print(f"{problem.kind} ({split}): {problem.words}")
    if len(problems) > _SHOWN:
        print(f"... and {len(problems) - _SHOWN} more; --json FILE lists them all")


def _write_sheet(path: Path, samples: int, located: "Located", reports: "list[SplitReport]") -> None:
    from runtime.sinks import write_image
    from training.datasets.sheet import contact_sheet

    usable = [pair for report in reports for pair in report.usable]
    if not usable:
        raise InputError(f"{path} cannot be drawn: no image of {located.root} can be used with its label.")
    decode = located.layout.decoder(located.root)
    with new_file(path) as temporary:
        write_image(temporary, contact_sheet(usable, decode, located.layout.classes, samples))
