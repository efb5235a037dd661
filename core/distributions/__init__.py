"""Data sets as their owners distribute them, read for AVA layout; `importing` is what the readers share."""

from core.distributions.asw import read_asw
from core.distributions.ava_avd import read_ava_avd
from core.distributions.ego4d import read_ego4d
from core.distributions.talknet_layout import read_unitalk, read_wasd

# Name -> a reader (SOURCE, folder of videos or None for the owners') -> Distribution.
READERS = {
    "wasd": read_wasd,
    "unitalk": read_unitalk,
    "ego4d": read_ego4d,
    "asw": read_asw,
    "ava-avd": read_ava_avd,
}
