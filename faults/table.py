"""All rows of the rig, in the order of the results page."""

from collections.abc import Callable

from faults.rig import Rig
from faults.row import Row
from faults.rows.bad_updates import non_finite, spikes
from faults.rows.company import clocks, locks
from faults.rows.crashes import crashes_at_resume, crashes_at_start, crashes_in_save
from faults.rows.damage import flips, lengths
from faults.rows.early import early_ends
from faults.rows.hostile import checkpoints, names
from faults.rows.inputs import configs, records, texts
from faults.rows.interruptions import signals
from faults.rows.kills import clean, kills
from faults.rows.links import links
from faults.rows.modules import working_folders
from faults.rows.namespaces import locks_in_namespaces
from faults.rows.space import no_space
from faults.rows.tokens import shards
from faults.rows.unreadable import replaced, unreadable
from faults.rows.watching import watching

ROWS: dict[str, Callable[[Rig], Row]] = {
    "clean": clean,
    "kills": kills,
    "crashes in a save": crashes_in_save,
    "crashes at the start": crashes_at_start,
    "crashes at a resume": crashes_at_resume,
    "signals": signals,
    "watching": watching,
    "truncations": lengths,
    "bit flips": flips,
    "unreadable checkpoints": unreadable,
    "best replaced while read": replaced,
    "no space": no_space,
    "locks": locks,
    "locks in namespaces": locks_in_namespaces,
    "clocks": clocks,
    "non-finite": non_finite,
    "spikes": spikes,
    "shards": shards,
    "configs": configs,
    "texts": texts,
    "records": records,
    "hostile checkpoints": checkpoints,
    "hostile names": names,
    "symlinks": links,
    "early ends": early_ends,
    "working folders": working_folders,
}
