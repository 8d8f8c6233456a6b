"""Each official data set in a small copy of its layout, its labels against the official tables."""

import numpy as np
import pytest
from mini_sets import FORMS, SIZE, VISTAS, write_image, write_label, write_set
from PIL import Image

from splitmerge.labels import CITYSCAPES
from training.data import classes_of, image_files, is_labelled, open_dataset, training_sets
from training.datasets import ade20k, camvid, cityscapes, context, gta5, voc
from training.datasets.known import LAYOUTS, locate

labels = pytest.importorskip("cityscapesscripts.helpers.labels")


def _cityscapes(value: int) -> int:
    return labels.id2label[value].trainId if value < 34 else 255  # 34 is GTA-5's license plate, -1 in Cityscapes


def _vistas(value: int) -> int | None:
    """Vistas has Cityscapes' colour where it has Cityscapes' class; None where it is a colour of its own."""
    colour = tuple(VISTAS[value][1])
    same = {
        label.trainId
        for label in labels.labels
        if label.color == colour and label.id >= 0 and label.name != "polegroup"
    }
    return same.pop() if len(same) == 1 else None


ORACLES = {
    "cityscapes": _cityscapes,
    "cityscapes-coarse": _cityscapes,
    "gta5": _cityscapes,
    "kitti": _cityscapes,
    "camvid": lambda value: value if value < 11 else 255,
    "voc": lambda value: value,
    "pascal-context": lambda value: value,
    "ade20k": lambda value: value - 1 if value else 255,
}
NUMBER = {"camvid": 11, "voc": 21, "pascal-context": 60, "ade20k": 150}


@pytest.mark.parametrize("kind", FORMS)
def test_labels_of_every_split_are_the_official_ones(tmp_path, kind):
    values = write_set(kind, tmp_path)
    classes = classes_of(f"{kind}:{tmp_path}")
    assert len(classes) == NUMBER.get(kind, 19)
    for split, raws in values.items():
        dataset = open_dataset(f"{kind}:{tmp_path}:{split}", SIZE, num_classes=len(classes))
        assert len(dataset) == len(raws) == 3
        for index, raw in enumerate(raws):
            image, found = dataset[index]
            assert image.shape == (*SIZE, 3) and found.dtype == np.uint8
            for value in np.unique(raw):
                expected = ORACLES[kind](int(value)) if kind in ORACLES else _vistas(int(value))
                assert expected is None or set(found[raw == value].tolist()) == {expected}, (kind, value)


@pytest.mark.parametrize("kind", [kind for kind in FORMS if kind != "gta5"])
def test_a_bare_folder_tells_what_it_is(tmp_path, kind):
    write_set(kind, tmp_path)
    located = locate(str(tmp_path), 19)
    assert located is not None and located.layout.name == kind
    assert is_labelled(str(tmp_path)) and is_labelled(f"{tmp_path}:train")
    default = "train" if kind == "kitti" else "val"
    number = NUMBER.get(kind, 19)
    bare, named = (open_dataset(name, SIZE, num_classes=number) for name in (f"{tmp_path}", f"{tmp_path}:{default}"))
    np.testing.assert_array_equal(bare[0][0], named[0][0])


def test_gta5s_bare_folder_is_no_folder_of_class_ids(tmp_path):
    write_set("gta5", tmp_path)
    with pytest.raises(Exception, match=r"it is a palette PNG: say which data set it belongs to, as in gta5:DIR"):
        open_dataset(str(tmp_path), SIZE)[0]


def test_training_and_validation_of_every_data_set(tmp_path):
    for kind in FORMS:
        root = tmp_path / kind
        write_set(kind, root, 11)
        number = NUMBER.get(kind, 19)
        train, val = training_sets(f"{kind}:{root}", SIZE, 0, 0, tmp_path, number)
        expected = {"kitti": (9, 2), "gta5": (10, 1)}.get(kind, (11, 11))
        assert (len(train), len(val)) == expected, kind
        seen = {train[index][0].tobytes() for index in range(len(train))}
        assert not seen & {val[index][0].tobytes() for index in range(len(val))}
        files = image_files(f"{kind}:{root}")
        assert files is not None and len(files) == (10 if kind == "gta5" else 11)


def test_cityscapes_table_and_categories_are_the_official_ones():
    for label in labels.labels:
        if label.id >= 0:
            assert cityscapes.TRAIN_ID_OF[label.id] == (label.trainId if not label.ignoreInEval else 255)
    for train_id, entry in enumerate(CITYSCAPES):
        official = labels.trainId2label[train_id]
        assert (entry.name, entry.rgb) == (official.name, official.color)
        assert cityscapes.CATEGORIES[cityscapes.CATEGORY_OF[train_id]] == official.category


def test_cityscapes_train_ids_are_taken_where_there_are_no_ids(tmp_path):
    raw = write_set("cityscapes", tmp_path)["val"][0]
    table = np.array([_cityscapes(value) for value in range(34)], np.uint8)
    expected = open_dataset(f"{tmp_path}:val", SIZE)[0][1]
    for path in sorted(tmp_path.glob("gtFine/val/*/*")):
        write_label(path.with_name(path.name.replace("labelIds", "labelTrainIds")), table[raw], False)
        path.unlink()
    np.testing.assert_array_equal(open_dataset(f"{tmp_path}:val", SIZE)[0][1], expected)


def test_gta5_holds_out_500_of_the_released_names_and_leaves_two_out(tmp_path):
    released = [f"{number:05d}" for number in range(1, 24967)]
    assert len(gta5.validation_names(set(released) - set(gta5.KNOWN_BAD))) == 500
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for name in (*released[:200], *gta5.KNOWN_BAD):
        (tmp_path / f"images/{name}.png").touch()
    located = locate(f"gta5:{tmp_path}", 19)
    stems = {}
    for split in ("train", "val", "all"):
        listing = located.layout.listing(tmp_path, split)
        stems[split] = {pair.image.stem for pair in listing.pairs}
        assert listing.notes == ("15188, 17705 left out: their labels are of another size in the official release",)
        assert not listing.spare
    assert stems["val"] == gta5.validation_names(released[:200]) and len(stems["val"]) == 4
    assert not stems["val"] & stems["train"] and stems["val"] | stems["train"] == stems["all"] == set(released[:200])


OFFICIAL_VOC = {
    "background": (0, 0, 0), "aeroplane": (128, 0, 0), "bicycle": (0, 128, 0), "bird": (128, 128, 0),
    "boat": (0, 0, 128), "bottle": (128, 0, 128), "bus": (0, 128, 128), "car": (128, 128, 128), "cat": (64, 0, 0),
    "chair": (192, 0, 0), "cow": (64, 128, 0), "diningtable": (192, 128, 0), "dog": (64, 0, 128),
    "horse": (192, 0, 128), "motorbike": (64, 128, 128), "person": (192, 128, 128), "pottedplant": (0, 64, 0),
    "sheep": (128, 64, 0), "sofa": (0, 192, 0), "train": (128, 192, 0), "tvmonitor": (0, 64, 128),
}  # fmt: skip


def test_voc_names_and_palette(tmp_path):
    assert {entry.name: entry.rgb for entry in voc.CLASSES} == OFFICIAL_VOC
    assert [entry.name for entry in voc.CLASSES] == list(OFFICIAL_VOC)


def test_voc_augmented_by_each_form_of_its_list(tmp_path):
    write_set("voc", tmp_path)  # 1 to 3 are train, 4 to 6 val
    random = np.random.default_rng(1)
    for number in range(1, 9):  # SBD adds 7 and 8
        write_image(tmp_path / f"JPEGImages/2007_{number:06d}.jpg", random)
        write_label(tmp_path / f"SegmentationClassAug/2007_{number:06d}.png", np.full(SIZE, 5, np.uint8), False)
    lists = tmp_path / "ImageSets/Segmentation"

    def names():
        pairs = locate(f"voc:{tmp_path}:trainaug", 21).listing(training=True).pairs
        assert all(pair.label.parent.name == "SegmentationClassAug" for pair in pairs)
        return [int(pair.image.stem[-6:]) for pair in pairs]

    assert names() == [1, 2, 3, 7, 8]
    (lists / "aug.txt").write_text("2007_000008\n2007_000007\n")
    assert names() == [1, 2, 3, 7, 8]
    (lists / "train_aug.txt").write_text("/JPEGImages/2007_000007.jpg /SegmentationClassAug/2007_000007.png\n")
    assert names() == [7]
    assert set(np.unique(open_dataset(f"voc:{tmp_path}:trainaug", SIZE, num_classes=21)[0][1])) == {5}
    train, val = training_sets(f"voc:{tmp_path}:trainaug", SIZE, 0, 0, tmp_path, 21)
    assert (len(train), len(val)) == (1, 3)


# SegNet's grouping by colour as MathWorks' CamVid example lists it.
SEGNET_COLOURS = {
    0: "808080", 1: "008040 800000 40c000 400040 c00080", 2: "c0c080 000040", 3: "804080 8000c0 c00040",
    4: "0000c0 40c080 8080c0", 5: "808000 c0c000", 6: "c08080 808040 004040", 7: "404080",
    8: "400080 4080c0 c080c0 c04080 804040", 9: "404000 c08040 4000c0 408040", 10: "0080c0 c000c0", 255: "000000",
}  # fmt: skip


def test_camvids_32_colours_become_11_classes(tmp_path):
    expected = {bytes.fromhex(colour): index for index, group in SEGNET_COLOURS.items() for colour in group.split()}
    assert len(expected) == len(camvid.COLOURS) == 32
    rgb = np.array([list(colour) for colour in expected], np.uint8).reshape(4, 8, 3).repeat(6, 0).repeat(5, 1)
    truth = np.array(list(expected.values()), np.uint8).reshape(4, 8).repeat(6, 0).repeat(5, 1)
    for name in ("0001TP_006690", "0016E5_07959", "Seq05VD_f00000"):
        for folder, file in (("701_StillsRaw_full", f"{name}.png"), ("LabeledApproved_full", f"{name}_L.png")):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(rgb).save(tmp_path / folder / file)
    for split in ("train", "val", "test"):
        dataset = open_dataset(f"{tmp_path}:{split}", truth.shape, num_classes=11)
        assert len(dataset) == 1
        np.testing.assert_array_equal(dataset[0][1], truth)
    train, val = training_sets(f"camvid:{tmp_path}:train+val", SIZE, 0, 0, tmp_path, 11)
    assert (len(train), len(val)) == (2, 1)


def test_camvids_split_has_segnets_sizes():
    """The released frames: 124 of 0001TP, 101 of 0006R0, 305 of 0016E5 and 171 of Seq05VD."""
    names = [f"0001TP_{frame:06d}" for frame in range(6690, 6690 + 124 * 30, 30)]
    names += [f"0006R0_f{frame:05d}" for frame in range(930, 930 + 101 * 30, 30)]
    every_second = [*range(390, 390 + 188 * 30, 30), *range(8190, 8641, 30)]
    names += [f"0016E5_{frame:05d}" for frame in (*every_second, *range(7959, 8160, 2))]
    names += [f"Seq05VD_f{frame:05d}" for frame in range(0, 171 * 30, 30)]
    split = [camvid.split_of(name) for name in names]
    assert [split.count(which) for which in ("train", "val", "test")] == [367, 101, 233]
    # Where SegNet's own lists change from one split to the next.
    assert [camvid.split_of(f"0001TP_{frame}") for frame in ("008520", "008550")] == ["train", "test"]
    edges = ("07920", "07959", "08159", "08190")
    assert [camvid.split_of(f"0016E5_{frame}") for frame in edges] == ["train", "val", "val", "train"]


def test_context_with_and_without_background(tmp_path):
    raw = write_set("pascal-context", tmp_path)["val"][0]
    names = [entry.name for entry in context.CLASSES]
    assert len(names) == 60 and names[1:] == sorted(names[1:])
    assert {entry.name for entry in voc.CLASSES} - set(names) == {"diningtable"} and "table" in names
    found = open_dataset(f"pascal-context59:{tmp_path}", SIZE, num_classes=59)[0][1]
    np.testing.assert_array_equal(found, np.where(raw == 0, 255, raw.astype(int) - 1))
    assert [entry.name for entry in classes_of(f"pascal-context59:{tmp_path}")] == names[1:]


def test_ade20k_names_stand_at_their_places():
    names = [entry.name for entry in ade20k.CLASSES]
    assert len(set(names)) == 150
    # Lines of the official objectInfo150.txt, which counts from 1.
    for line, name in {1: "wall", 13: "person", 21: "car", 76: "swivel chair", 128: "bicycle", 150: "flag"}.items():
        assert names[line - 1] == name
    assert ade20k.CLASSES[0].rgb == (120, 120, 120) and ade20k.CLASSES[149].rgb == (92, 0, 255)


def test_vistas_second_release_and_its_width(tmp_path):
    raw = write_set("vistas", tmp_path)["val"][0]
    first = open_dataset(f"vistas:{tmp_path}", SIZE)[0][1]
    for part in ("training", "validation"):
        (tmp_path / part / "v1.2").mkdir()
        (tmp_path / part / "labels").rename(tmp_path / part / "v1.2/labels")
    (tmp_path / "config.json").rename(tmp_path / "config_v1.2.json")
    np.testing.assert_array_equal(open_dataset(f"vistas:{tmp_path}", SIZE)[0][1], first)
    scored = {entry.name for index, entry in enumerate(CITYSCAPES) if (first == index).any()}
    assert scored == {entry.name for entry in CITYSCAPES} and raw.max() == 65
    wide = np.random.default_rng(0)
    for path in (tmp_path / "training/images").iterdir():
        write_image(path, wide, (30, 4096))
        write_label(tmp_path / "training/v1.2/labels" / f"{path.stem}.png", np.full((30, 4096), 13, np.uint8), True)
    image, found = training_sets(f"vistas:{tmp_path}", SIZE, 0, 0, tmp_path)[0][0]
    assert image.shape == (15, 2048, 3) and set(np.unique(found)) == {0}


def test_several_are_joined_in_order_and_must_share_classes(tmp_path):
    for kind in ("cityscapes", "kitti", "voc"):
        write_set(kind, tmp_path / kind, 11)
    joined = f"cityscapes:{tmp_path}/cityscapes,kitti:{tmp_path}/kitti"
    train, val = training_sets(joined, SIZE, 0, 0, tmp_path)
    assert (len(train), len(val)) == (11 + 9, 11 + 2)
    for index, name in ((0, "cityscapes"), (10, "cityscapes"), (11, "kitti"), (19, "kitti")):
        alone, _ = training_sets(f"{name}:{tmp_path}/{name}", SIZE, 0, 0, tmp_path)
        np.testing.assert_array_equal(train[index][1], alone[index % 11][1])
    assert len(open_dataset(joined, SIZE, 2)) == 4
    assert len(list(train)) == 20  # an index behind the end is an IndexError
    with pytest.raises(Exception, match=r"has 21 classes, and cityscapes:.* has 19"):
        classes_of(f"cityscapes:{tmp_path}/cityscapes,voc:{tmp_path}/voc")


def test_every_layout_is_described():
    for layout in LAYOUTS:
        assert layout.training in layout.splits and layout.validation in (None, *layout.splits)
        names = [entry.name for entry in layout.classes]
        assert len(set(names)) == len(names)
