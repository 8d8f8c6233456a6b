"""A folder of videos across GPUs and machines: each segment exactly once, whatever dies meanwhile.

keyframes     where a video may be cut: key frames that decode on their own, found without decoding
segment       one segment as a source of frames, equal to those frames of the whole video
job, store    what is to be done, and what is done: the work folder, in which a result is whole or absent
worker        what a worker does: plan a video, segment a segment, join a video's segments
board         which task is next; how often one has failed
crew          workers behind one small interface: processes here (local), actors of a Ray cluster (ray_crew)
coordinator   gives the tasks of the board to the crew until nothing is left
"""
