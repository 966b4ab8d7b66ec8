"""The attacks by name: each a frozen dataclass of settings, all with defaults.

Names, summaries and sources are here so that they can be listed without torch; an attack's
module is imported when somebody gets it. A plugin is an entry point in the group
``scotoma.attacks`` that names such a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scotoma.core.registry import Registry

if TYPE_CHECKING:
    from scotoma.core.protocols import Attack, TrainableAttack

__all__ = ["ENTRIES", "Entry", "attacks"]


@dataclass(frozen=True)
class Entry:
    """One built-in attack, as listings show it.

    Args:
        name: As on the command line.
        home: ``"module:Class"`` below ``scotoma.attacks``.
        summary: One line.
        source: Whose attack it is.
    """

    name: str
    home: str
    summary: str
    source: str


_OURS = "this project"
_ALL = (
    Entry(
        "look",
        "look:Look",
        "the release itself: what is visible without any effort",
        _OURS,
    ),
    Entry(
        "norm-thumbnail",
        "statistics.norm_thumbnail:NormThumbnail",
        "the length of each encrypted block is a thumbnail: rotations keep lengths",
        _OURS,
    ),
    Entry(
        "pca",
        "statistics.pca:PCA",
        "principal components, brought to natural pictures' by moments of neighbouring blocks",
        "this project; joint moments after Belouchrani et al. 1997",
    ),
    Entry(
        "known-plaintext",
        "algebra.known_plaintext:KnownPlaintext",
        "linear maps from known pairs: rotation, affine, order of blocks, whole pictures",
        "Schönemann 1966; Hoerl, Kennard 1970",
    ),
    Entry(
        "known-likeness",
        "algebra.known_likeness:KnownLikeness",
        "known pictures weighed by how alike their releases are to the asked one",
        "Saunders, Gammerman, Vovk 1998 (kernel ridge regression)",
    ),
    Entry(
        "chosen-plaintext",
        "algebra.chosen_plaintext:ChosenPlaintext",
        "linear maps of blocks from impulses, and their order from numbered blocks",
        "textbook, as for a Hill cipher",
    ),
    Entry(
        "noise-space",
        "algebra.noise_space:NoiseSpace",
        "a repeated picture tells what is noise; chosen patterns are read beside it",
        _OURS,
    ),
    Entry(
        "adapted-statistics",
        "algebra.stem_recovery:AdaptedStatistics",
        "what an adapted model undoes, then the smoothest directions of blocks",
        _OURS,
    ),
    Entry(
        "stem-recovery",
        "algebra.stem_recovery:StemRecovery",
        "the key's maps from a public model and the same one adapted",
        "this project; the equation is Aso et al. 2023",
    ),
    Entry(
        "spatial-lag",
        "statistics.spatial_lag:SpatialLag",
        "the smoothest directions of whitened blocks",
        "Switzer, Green 1984",
    ),
    Entry(
        "lag-ica",
        "statistics.spatial_lag:LagICA",
        "independent components within the smoothest directions",
        "Switzer, Green 1984; Hyvärinen 1999",
    ),
    Entry(
        "ica",
        "statistics.spatial_lag:ICA",
        "independent components of whole blocks, the smoothest kept",
        "Hyvärinen 1999",
    ),
    Entry(
        "position-field",
        "statistics.position_field:PositionField",
        "brightness as a smooth field, where every position has its own map",
        "this project; multiset canonical correlation after Kettenring 1971",
    ),
    Entry(
        "mda",
        "statistics.minimum_difference:MinimumDifference",
        "the order of moved values in which near pixels differ least",
        "criterion: minimum difference attack (MDA); search: Vogelstein et al. 2015",
    ),
    Entry(
        "fr",
        "statistics.feature_reconstruction:FeatureReconstruction",
        "every value or its negative, whichever is darker: undoes negatives, nothing else",
        "Chang, Case 2020 (feature reconstruction)",
    ),
    Entry(
        "inversion-conv",
        "inversion.attacks:ConvInversion",
        "convolutions over blocks, trained on known pairs under the attacked key",
        "Dosovitskiy, Brox 2016 (inverting networks)",
    ),
    Entry(
        "inversion-transformer",
        "inversion.attacks:TransformerInversion",
        "attention over blocks, trained on known pairs under the attacked key",
        "Dosovitskiy, Brox 2016 (inverting networks); this network is ours",
    ),
    Entry(
        "inversion-conv-chosen",
        "inversion.attacks:ChosenConvInversion",
        "convolutions over blocks, trained on what the attacked key's oracle answers",
        "Dosovitskiy, Brox 2016 (inverting networks)",
    ),
    Entry(
        "inversion-transformer-chosen",
        "inversion.attacks:ChosenTransformerInversion",
        "attention over blocks, trained on what the attacked key's oracle answers",
        "Dosovitskiy, Brox 2016 (inverting networks); this network is ours",
    ),
    Entry(
        "inversion-conv-other-key",
        "inversion.attacks:OtherKeyConvInversion",
        "convolutions over blocks, trained on releases under keys of the attacker's own (ITN)",
        "inverse transformation networks; what keys leave alone is ours",
    ),
    Entry(
        "inversion-transformer-other-key",
        "inversion.attacks:OtherKeyTransformerInversion",
        "attention over blocks, trained on releases under keys of the attacker's own (ITN)",
        "inverse transformation networks; what keys leave alone is ours",
    ),
    Entry(
        "inversion-conv-features",
        "inversion.attacks:FeatureConvInversion",
        "convolutions trained by squared errors on features of the attacker's own pictures",
        "Dosovitskiy, Brox 2016 (inverting networks)",
    ),
    Entry(
        "inversion-transformer-features",
        "inversion.attacks:FeatureTransformerInversion",
        "attention trained by squared errors on features of the attacker's own pictures",
        "Dosovitskiy, Brox 2016 (inverting networks); this network is ours",
    ),
    Entry(
        "deblur",
        "restoration.deblur:Deblur",
        "a network trained to undo the fill of a region",
        _OURS,
    ),
    Entry(
        "dictionary",
        "restoration.dictionary:Dictionary",
        "the originals of the auxiliary patches that were painted most alike",
        "Ma, Zhang, Qi 2010",
    ),
    Entry(
        "mean-region",
        "restoration.mean_region:MeanRegion",
        "the mean of such regions: all that is left where a fill leaves nothing",
        _OURS,
    ),
    Entry(
        "jigsaw",
        "jigsaw.jigsaw:Jigsaw",
        "patches that changed places, put back by how their borders continue",
        "Gallagher 2012; Sholomon et al. 2013",
    ),
    Entry(
        "jigsaw-learned",
        "jigsaw.learned:JigsawLearned",
        "the same with borders judged by a network, and usual places",
        "Sholomon et al. 2016",
    ),
    Entry(
        "hidden-order",
        "jigsaw.hidden_order:HiddenOrder",
        "blocks that moved and were mapped, ordered by how alike they are over pictures",
        _OURS,
    ),
    Entry(
        "patch-means",
        "jigsaw.mixing:PatchMeans",
        "the mean of every patch, which mixing keeps: a thumbnail",
        _OURS,
    ),
    Entry(
        "unmix",
        "jigsaw.mixing:Unmix",
        "mixed patches taken apart by the best linear guess from those around",
        "this project; Wiener 1949",
    ),
)

ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _ALL}
"""The built-in attacks by name; plugins are in :data:`attacks` only."""

attacks: Registry[type[Attack] | type[TrainableAttack]] = Registry("attack")

for _entry in _ALL:
    attacks.defer(_entry.name, f"scotoma.attacks.{_entry.home}")
