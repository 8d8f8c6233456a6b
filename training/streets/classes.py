"""Train ids by name, from the project's one list of classes."""

from splitmerge.labels import CITYSCAPES, IGNORE

__all__ = [
    "BICYCLE", "BUILDING", "BUS", "CAR", "FENCE", "MOTORCYCLE", "PERSON", "POLE", "RIDER", "ROAD",
    "SIDEWALK", "SKY", "TERRAIN", "TRAFFIC_LIGHT", "TRAFFIC_SIGN", "TRAIN", "TRUCK", "VEGETATION",
    "VOID", "WALL",
]  # fmt: skip

_IDS = {entry.name: index for index, entry in enumerate(CITYSCAPES)}

ROAD = _IDS["road"]
SIDEWALK = _IDS["sidewalk"]
BUILDING = _IDS["building"]
WALL = _IDS["wall"]
FENCE = _IDS["fence"]
POLE = _IDS["pole"]
TRAFFIC_LIGHT = _IDS["traffic light"]
TRAFFIC_SIGN = _IDS["traffic sign"]
VEGETATION = _IDS["vegetation"]
TERRAIN = _IDS["terrain"]
SKY = _IDS["sky"]
PERSON = _IDS["person"]
RIDER = _IDS["rider"]
CAR = _IDS["car"]
TRUCK = _IDS["truck"]
BUS = _IDS["bus"]
TRAIN = _IDS["train"]
MOTORCYCLE = _IDS["motorcycle"]
BICYCLE = _IDS["bicycle"]
VOID = IGNORE
