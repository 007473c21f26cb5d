"""How good is a trained model: the bound over a whole set, log p(x), and what its codes hold."""

from vae.evaluation.bounds import (
    as_intensities,
    check_bounded,
    check_images,
    evaluate,
    log_marginal_likelihood,
)
from vae.evaluation.codes import (
    ALIGNED_CROSS,
    ALIGNED_MATCHED,
    UNFOLDED_R2,
    CodeScores,
    MatchedSpearman,
    active_units,
    affine_r2,
    code_of,
    matched_spearman,
    mig,
    procrustes_distance,
    reconstruction_error,
    rotation_angle,
    sap,
    score_code,
)

__all__ = [
    "ALIGNED_CROSS",
    "ALIGNED_MATCHED",
    "UNFOLDED_R2",
    "CodeScores",
    "MatchedSpearman",
    "active_units",
    "affine_r2",
    "as_intensities",
    "check_bounded",
    "check_images",
    "code_of",
    "evaluate",
    "log_marginal_likelihood",
    "matched_spearman",
    "mig",
    "procrustes_distance",
    "reconstruction_error",
    "rotation_angle",
    "sap",
    "score_code",
]
