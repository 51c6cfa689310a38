"""Break the losses, ranks and metrics by hand, a line at a time: the tests must notice each break.

    python tests/mutants.py [--only TEXT] [--jobs N]

Every mutant below is written into a copy of src/, and the tests of its module are run against the
copy. The script fails if a mutant survives, or if its line is no longer in the source.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

LOSS_TESTS = "tests/losses/test_ranked_info_nce.py tests/losses/test_temperatures.py"
TESTS = {
    "losses/ranked_info_nce.py": LOSS_TESTS,
    "losses/terms.py": LOSS_TESTS,
    "losses/streamed.py": "tests/losses/test_streamed.py",
    "losses/kernels.py": "tests/losses/test_streamed.py",
    "losses/self_pairs.py": "tests/losses/test_streamed.py",
    "losses/positive_pairs.py": "tests/losses/test_streamed.py",
    "losses/masked.py": LOSS_TESTS + " tests/losses/test_contrastive.py",
    "losses/contrastive.py": "tests/losses/test_contrastive.py",
    "losses/temperatures.py": LOSS_TESTS,
    "losses/hierarchical.py": "tests/losses/test_hierarchical.py",
    "losses/metric_learning.py": "tests/losses/test_metric_learning.py",
    "data/sampler.py": "tests/data/test_sampler.py",
    "training/objectives.py": "tests/training/test_objectives.py tests/training/test_module.py",
    "training/classifiers.py": "tests/training/test_objectives.py",
    "training/module.py": "tests/training/test_module.py",
    "core/pair_ranks.py": "tests/core/test_pair_ranks.py",
    "core/files.py": "tests/data/test_video_sources.py tests/data/test_images.py",
    "core/distributed.py": "tests/core/test_distributed.py",
    "ranks/similarity.py": "tests/ranks/test_similarity.py",
    "ranks/score_files.py": "tests/ranks/test_score_files.py",
    "ranks/score_summary.py": "tests/ranks/test_similarity.py",
    "ranks/class_names.py": "tests/ranks/test_class_names.py",
    "ranks/wordnet.py": "tests/ranks/test_class_names.py",
    "ranks/noise.py": "tests/ranks/test_noise.py",
    "ranks/time.py": "tests/ranks/test_time.py",
    "training/ranks.py": "tests/training/test_ranks.py",
    "models/queue.py": "tests/models/test_queue.py",
    "models/momentum.py": "tests/models/test_momentum.py",
    "data/texts.py": "tests/data/test_texts.py tests/cli/test_export_kinds.py",
    "data/text_sources.py": "tests/data/test_texts.py",
    "data/batches.py": "tests/data/test_texts.py tests/data/test_batches.py",
    "models/texts.py": "tests/models/test_text_backbones.py tests/cli/test_export_kinds.py",
    "training/splits.py": "tests/training/test_text_runs.py",
    "training/config.py": "tests/training/test_video_runs.py",
    "cli/parser.py": "tests/cli/test_cli.py",
    "reports/table.py": "tests/reports/test_table.py",
    "data/video.py": "tests/data/test_video.py",
    "data/clips.py": "tests/data/test_clips.py tests/cli/test_export_kinds.py",
    "data/video_sources.py": "tests/data/test_clips.py tests/data/test_video_sources.py",
    "data/views.py": "tests/data/test_clips.py tests/data/test_views.py",
    "evaluation/times.py": "tests/evaluation/test_times.py",
    "training/cached.py": "tests/training/test_cached.py",
    "adapters/sentence_transformers.py": "tests/adapters/test_sentence_transformers.py",
    "adapters/metric_learning.py": "tests/adapters/test_pytorch_metric_learning.py",
    "ranks/score_ranks.py": "tests/ranks/test_score_ranks.py",
    "ranks/measures.py": "tests/ranks/test_score_ranks.py",
    "losses/rank_n_contrast.py": "tests/losses/test_rank_n_contrast.py",
    "evaluation/retrieval.py": "tests/evaluation/test_retrieval.py",
    "evaluation/graded.py": "tests/evaluation/test_graded.py",
    "evaluation/knn.py": "tests/evaluation/test_knn.py",
    "evaluation/ood.py": "tests/evaluation/test_ood.py",
    "evaluation/ordering.py": "tests/evaluation/test_ordering.py",
    "evaluation/linear_probe.py": "tests/evaluation/test_linear_probe.py",
    "evaluation/embeddings.py": (
        "tests/evaluation/test_embeddings.py tests/cli/test_export_kinds.py"
    ),
    "models/exported.py": "tests/models/test_exported.py tests/cli/test_export_kinds.py",
    "models/weights.py": "tests/models/test_exported.py",
    "models/onnx_file.py": "tests/models/test_exported.py tests/cli/test_export_kinds.py",
    "training/checkpoint.py": "tests/cli/test_export_verbs.py tests/cli/test_export_kinds.py",
    "reports/model_card.py": "tests/reports/test_model_card.py tests/cli/test_export_kinds.py",
    "evaluation/evaluate.py": (
        "tests/evaluation/test_evaluate.py tests/evaluation/test_evaluate_videos.py"
    ),
    "evaluation/class_similarity.py": "tests/evaluation/test_class_similarity.py",
    "reports/figures.py": "tests/reports/test_figures.py",
    "reports/class_maps.py": "tests/reports/test_class_maps.py",
    "reports/training_curves.py": "tests/reports/test_training_curves.py",
    "reports/origins.py": "tests/reports/test_page.py",
    "reports/methods.py": "tests/reports/test_page.py",
    "reports/page.py": "tests/reports/test_page.py",
    "cli/export.py": "tests/cli/test_export_verbs.py",
    "cli/embed.py": "tests/cli/test_export_kinds.py tests/cli/test_export_verbs.py",
    "cli/search.py": "tests/cli/test_export_verbs.py tests/cli/test_export_kinds.py",
    "data/images.py": "tests/evaluation/test_embeddings.py tests/data/test_images.py",
}


class Mutant(NamedTuple):
    file: str  # below src/rince
    original: str  # occurs exactly once
    mutated: str
    why: str


RINCE = "losses/ranked_info_nce.py"
TERMS = "losses/terms.py"
STREAMED = "losses/streamed.py"
KERNELS = "losses/kernels.py"
SELF = "losses/self_pairs.py"
POSITIVE = "losses/positive_pairs.py"
MASKED = "losses/masked.py"
CONTRASTIVE = "losses/contrastive.py"
TEMPERATURES = "losses/temperatures.py"
HIERARCHICAL = "losses/hierarchical.py"
TRIPLET = "losses/metric_learning.py"
OBJECTIVES = "training/objectives.py"
CLASSIFIERS = "training/classifiers.py"
TIME = "ranks/time.py"
TEXTS = "data/texts.py"
TEXT_SOURCES = "data/text_sources.py"
TEXT_MODELS = "models/texts.py"
VIDEO = "data/video.py"
CLIPS = "data/clips.py"
SOURCES = "data/video_sources.py"
BELOW = "core/files.py"
VIEWS = "data/views.py"
TIMES = "evaluation/times.py"
MODULE = "training/module.py"
SAMPLER = "data/sampler.py"
PAIRS = "core/pair_ranks.py"
CACHED = "training/cached.py"
SCORES = "ranks/similarity.py"
FILES = "ranks/score_files.py"
SUMMARY = "ranks/score_summary.py"
NAMES = "ranks/class_names.py"
WORDNET = "ranks/wordnet.py"
NOISE = "ranks/noise.py"
TRAINED = "training/ranks.py"
PML = "adapters/metric_learning.py"
ST = "adapters/sentence_transformers.py"
ITEMS = "ranks/score_ranks.py"
MEASURES = "ranks/measures.py"
RNC = "losses/rank_n_contrast.py"
RETRIEVAL = "evaluation/retrieval.py"
GRADED = "evaluation/graded.py"
KNN = "evaluation/knn.py"
OOD = "evaluation/ood.py"
ORDER = "evaluation/ordering.py"
PROBE = "evaluation/linear_probe.py"
EMBEDDINGS = "evaluation/embeddings.py"
EXPORTED = "models/exported.py"
WEIGHTS = "models/weights.py"
ONNX = "models/onnx_file.py"
CHECKPOINT = "training/checkpoint.py"
CARD = "reports/model_card.py"
CLASS_MAPS = "reports/class_maps.py"
CURVES = "reports/training_curves.py"
ORIGINS = "reports/origins.py"
METHODS = "reports/methods.py"
PAGE = "reports/page.py"
FIGURES = "reports/figures.py"
CLASS_MEANS = "evaluation/class_similarity.py"
EVALUATE = "evaluation/evaluate.py"
EXPORT = "cli/export.py"
EMBED = "cli/embed.py"
SEARCH = "cli/search.py"
IMAGES = "data/images.py"

LESS_SIMILAR = "less_similar = (rank > i) | (rank == 0)"
EXCLUSIVE = 'if positives == "cumulative" else rank == i'
CUMULATIVE = "(rank >= 1) & (rank <= i) if"
OUT_TERM = "term = mean_over_mask(per_key, is_positive)"
IN_TERM = "log_one_plus_exp(less_similar - masked_logsumexp(logits, is_positive))"
LEARNS = "is_positive.any(dim=1) & is_less_similar.any(dim=1)"
SOFTPLUS = "torch.logaddexp(x, torch.zeros_like(x))"

MUTANTS = (
    # The loss: which keys stand in which term.
    Mutant(TERMS, LESS_SIMILAR, "less_similar = rank == 0", "worse ranks are no competitors"),
    Mutant(TERMS, LESS_SIMILAR, "less_similar = rank > i", "negatives are no competitors"),
    Mutant(TERMS, LESS_SIMILAR, "less_similar = (rank != i) & (rank >= 0)", "better compete"),
    Mutant(TERMS, LESS_SIMILAR, "less_similar = (rank > i) | (rank <= 0)", "ignored compete"),
    Mutant(TERMS, EXCLUSIVE, EXCLUSIVE + " + 1", "positives of the next rank"),
    Mutant(TERMS, EXCLUSIVE, EXCLUSIVE.replace("rank == i", "rank >= i"), "worse are positives"),
    Mutant(TERMS, EXCLUSIVE, 'if positives != "cumulative" else rank == i', "options swapped"),
    Mutant(TERMS, CUMULATIVE, "(rank <= i) if", "negatives and ignored are positives"),
    Mutant(TERMS, CUMULATIVE, "(rank >= 1) & (rank < i) if", "union stops a rank early"),
    # Temperatures and ranks.
    Mutant(TERMS, "similarity / tau", "similarity / taus[0]", "one temperature for all ranks"),
    Mutant(TERMS, "similarity / tau", "similarity * tau", "inverse temperature"),
    Mutant(TERMS, "enumerate(taus, start=1)", "enumerate(taus[::-1], start=1)", "swapped taus"),
    Mutant(TERMS, "enumerate(taus, start=1)", "enumerate(taus[:2], start=1)", "third rank missing"),
    Mutant(TERMS, "enumerate(taus, start=1)", "enumerate(taus, start=0)", "ranks start at 0"),
    # The form of a term.
    Mutant(TERMS, "and rank == 1)", "and rank != 1)", "in-out for out-in"),
    Mutant(TERMS, "and rank == 1)", "and rank <= 2)", "out for rank 2 too"),
    Mutant(TERMS, 'return variant == "out" or', 'return variant == "in" or', "in and out swapped"),
    Mutant(
        TERMS, "less_similar[:, None] - logits", "logits - less_similar[:, None]", "pushes away"
    ),
    Mutant(TERMS, OUT_TERM, OUT_TERM + " * is_positive.sum(dim=1)", "sum over positives"),
    Mutant(
        TERMS,
        OUT_TERM,
        OUT_TERM + " * is_positive.sum(dim=1) * is_positive.any(dim=1).sum() / is_positive.sum()",
        "mean over pairs, not over queries",
    ),
    Mutant(TERMS, IN_TERM, IN_TERM.replace("masked_logsumexp", "mean_over_mask"), "mean for sum"),
    Mutant(TERMS, IN_TERM, IN_TERM.replace("less_similar - ", "less_similar * 0 - "), "no rivals"),
    Mutant(TERMS, SOFTPLUS, "torch.log1p(x.exp())", "overflows at temperature 0.01"),
    Mutant(TERMS, SOFTPLUS, "x.clamp(min=0)", "hinge for softplus"),
    Mutant(TERMS, SOFTPLUS, "torch.logaddexp(x, x * 0 - 1)", "wrong constant"),
    Mutant(
        TERMS, SOFTPLUS, "torch.log(1 + x.clamp(max=80).exp())", "a small loss loses its digits"
    ),
    # What counts.
    Mutant(TERMS, LEARNS, LEARNS.replace("&", "|"), "a term without a positive counts"),
    Mutant(TERMS, LEARNS, "is_positive.any(dim=1)", "a term without a less similar key counts"),
    Mutant(TERMS, "torch.where(learns, term, 0)", "term", "a term with nothing to learn is kept"),
    Mutant(RINCE, "terms.values.sum(dim=0)", "terms.values.mean(dim=0)", "divides by the ranks"),
    Mutant(
        RINCE,
        "terms.values.sum(dim=0)",
        "(terms.values.sum(dim=0) / terms.active.sum(dim=0).clamp(min=1))",
        "divides by the ranks present",
    ),
    Mutant(
        RINCE, "terms.active.any(dim=0)", "terms.active.all(dim=0)", "counts whole queries only"
    ),
    Mutant(TERMS, "self.active.sum(dim=1).clamp(min=1)", "self.active.shape[1]", "mean over all"),
    Mutant(
        RINCE, "highest=highest_rank(source)", "highest=0", "a rank without a temperature passes"
    ),
    Mutant(RINCE, "warn_if_nothing_to_learn(source, terms.active)", "pass", "silent zero"),
    # Numbers.
    Mutant(MASKED, "lowest = torch.finfo(logits.dtype).min", "lowest = 0.0", "e^0 for absent keys"),
    Mutant(MASKED, "masked_fill(~mask, lowest)", "masked_fill(mask, lowest)", "mask inverted"),
    Mutant(
        MASKED,
        "torch.logsumexp(logits.masked_fill(~mask, lowest), dim=1)",
        "logits.masked_fill(~mask, lowest).exp().sum(dim=1).log()",
        "no shift: overflow",
    ),
    Mutant(
        MASKED,
        "torch.logsumexp(logits.masked_fill(~mask, lowest), dim=1)",
        "(logits.softmax(dim=1) * mask).sum(dim=1).clamp(min=1e-7).log() + logits.logsumexp(dim=1)",
        "far positives are cut off at 1e-7, as in the prototype",
    ),
    Mutant(MASKED, "mask.sum(dim=1).clamp(min=1)", "mask.shape[1]", "mean over all keys"),
    Mutant(MASKED, "torch.where(mask, values, 0)", "values", "mean over all keys' sum"),
    Mutant(MASKED, "active.sum().clamp(min=1)", "active.numel()", "mean over all queries"),
    Mutant(MASKED, "active.sum().clamp(min=1)", "active.sum()", "0/0 in a batch without pairs"),
    Mutant(
        MASKED, "device.type, enabled=False", "device.type, enabled=True", "autocast reaches in"
    ),
    Mutant(
        MASKED,
        "torch.promote_types(torch.promote_types(query.dtype, key.dtype), torch.float32)",
        "torch.promote_types(query.dtype, key.dtype)",
        "half precision inside",
    ),
    Mutant(MASKED, "key.to(dtype).T", "key.detach().to(dtype).T", "no gradient to the keys"),
    Mutant(MASKED, "query.to(dtype) @", "query.detach().to(dtype) @", "no gradient to the queries"),
    Mutant(MASKED, "if key is not query:", "if key is query:", "keys are not checked"),
    Mutant(MASKED, "zero = norms == 0", "zero = norms < 0", "zero vectors pass"),
    Mutant(MASKED, "bad = ~torch.isfinite(norms)", "bad = torch.isinf(norms)", "NaN passes"),
    Mutant(MASKED, "> 0.02).any()", "> 2.0).any()", "unnormalised embeddings pass in silence"),
    # The one-rank relatives.
    Mutant(
        CONTRASTIVE,
        "masked_logsumexp(logits, rank >= 0) - mean_over_mask(logits, rank == 1)",
        "masked_logsumexp(logits, rank == 0) - mean_over_mask(logits, rank == 1)",
        "SupCon-out with negatives only below",
    ),
    Mutant(
        CONTRASTIVE,
        "masked_logsumexp(logits, rank >= 0) - masked_logsumexp(logits, is_positive)",
        "masked_logsumexp(logits, rank == 0) - masked_logsumexp(logits, is_positive)",
        "SupCon-in with negatives only below",
    ),
    Mutant(CONTRASTIVE, "is_positive) + log_count", "is_positive)", "SupCon-in without 1/|P|"),
    Mutant(
        CONTRASTIVE,
        "similarities(query, key) / temperature",
        "similarities(query, key)",
        "no temperature",
    ),
    Mutant(CONTRASTIVE, "query[rows],", "query[: rows.stop - rows.start],", "queries of block 1"),
    Mutant(CONTRASTIVE, "sum(dim=1) > 1)", "sum(dim=1) > 0)", "a lone positive counts"),
    Mutant(CONTRASTIVE, "most <= most_positives,", "most <= 2,", "InfoNCE takes two positives"),
    Mutant(CONTRASTIVE, "highest <= 1,", "highest <= 2,", "one-rank losses take rank 2"),
    # The rivals that know the tree.
    Mutant(HIERARCHICAL, "torch.maximum(pair_loss, worst_finer)", "pair_loss", "no constraint"),
    Mutant(HIERARCHICAL, "torch.maximum(pair", "torch.minimum(pair", "constraint upside down"),
    Mutant(HIERARCHICAL, "-torch.inf).max()", "-torch.inf).max().detach()", "no gradient to it"),
    Mutant(HIERARCHICAL, "pair_loss.masked_fill", "constrained.masked_fill", "the bound is kept"),
    Mutant(HIERARCHICAL, "(rank == level) &", "(rank >= 1) & (rank <= level) &", "finer pairs too"),
    Mutant(HIERARCHICAL, "weight / len(weights)", "weight", "sum over levels"),
    Mutant(HIERARCHICAL, "keepdim=True) > 1", "keepdim=True) > 0", "a lone positive counts"),
    Mutant(HIERARCHICAL, "logits, rank >= 0)[:", "logits, rank == 0)[:", "negatives only below"),
    Mutant(HIERARCHICAL, "math.exp(1 / level)", "math.exp(level)", "weights rise with the level"),
    Mutant(HIERARCHICAL, "highest <= len(weights)", "highest <= 127", "a rank without a weight"),
    Mutant(HIERARCHICAL, "smoothing * same /", "smoothing * same * 0 + smoothing /", "all classes"),
    Mutant(TRIPLET, "margin=step * margin", "margin=margin", "one margin for all ranks"),
    Mutant(TRIPLET, "level == better + step", "level == better - step", "better keys pushed away"),
    Mutant(TRIPLET, "(found > 0).sum()", "found.numel()", "mean over all triplets"),
    Mutant(
        TRIPLET, "torch.where(rank == 0, highest", "torch.where(rank < 0, highest", "no negatives"
    ),
    Mutant(TRIPLET, "highest + 2 - step", "highest + 1 - step", "the last rank meets no negatives"),
    Mutant(TRIPLET, "(draw * count[anchor]).long()", "(draw * 0).long()", "always the same key"),
    Mutant(TRIPLET, "LpDistance(power=2, ", "LpDistance(power=1, ", "distances not squared"),
    Mutant(TRIPLET, "generator=generator).to(", "generator=None).to(", "another generator"),
    Mutant(OBJECTIVES, "out(coarse, taxonomy, 2", "out(coarse, taxonomy, 1", "fine twice"),
    Mutant(OBJECTIVES, "pairs.head(0), pairs.head(1)", "pairs.head(0), pairs.head(0)", "one head"),
    Mutant(OBJECTIVES, "pairs.key, ranks, config.margin", "pairs.key, ranks, 0.2", "fixed margin"),
    Mutant(
        CLASSIFIERS,
        "cross_entropy(coarse, superclass)",
        "cross_entropy(coarse, labels // 3)",
        "groups",
    ),
    Mutant(CLASSIFIERS, "labels_at(2), config", "labels_at(1), config", "nothing to share with"),
    Mutant(MODULE, "WEAK_VIEWS if config", "ViewConfig() if config", "strong for weak"),
    # Temperatures.
    Mutant(
        TEMPERATURES, "tuple(minimum + (1 - score)", "tuple(minimum + score", "schedule upside down"
    ),
    Mutant(TEMPERATURES, "any(a >= b", "any(a > b", "equal temperatures pass in silence"),
    Mutant(TEMPERATURES, "all(t > 0 and", "all(t >= 0 and", "temperature 0 passes"),
    Mutant(
        TEMPERATURES, "given == num_ranks,", "given >= num_ranks,", "too many temperatures pass"
    ),
    # The streamed engine.
    Mutant(STREAMED, "g * upstream", "g", "upstream gradient is dropped"),
    Mutant(STREAMED, "g * upstream for", "g.mul_(upstream) for", "a second backward pass is off"),
    Mutant(STREAMED, "weight[rows])", "weight[: rows.stop - rows.start])", "weights of block 1"),
    Mutant(
        STREAMED, "loss / active.any(dim=0)", "loss / active.all(dim=0)", "mean over whole queries"
    ),
    Mutant(STREAMED, "gradient(upstream)", "gradient(upstream * 0 + 1)", "upstream is 1"),
    Mutant(STREAMED, "and not learnt_taus", "", "no gradient to learnt temperatures"),
    Mutant(KERNELS, "exponentials[:, rows].diagonal", "exponentials.diagonal", "its own key"),
    Mutant(KERNELS, "real &= chosen !=", "real &= chosen >=", "own place among the positives"),
    Mutant(KERNELS, "num_keys -= masks", "num_keys -= 0 * masks", "counts itself as a positive"),
    Mutant(KERNELS, "i.taus[0] / i.taus[j]", "i.taus[j] / i.taus[0]", "temperatures upside down"),
    Mutant(KERNELS, "shares[j] / less[j]", "shares[j]", "push not shared out"),
    Mutant(KERNELS, "odds.sigmoid() / positive", "1 / positive", "pulls what is won already"),
    Mutant(KERNELS, "scale / (less + positive)", "scale / less", "pushes what is won already"),
    Mutant(KERNELS, "scatter_add_(0, chosen, -share", "scatter_(0, chosen, -share", "replaces"),
    Mutant(KERNELS, "torch.float32: 80.0", "torch.float32: 800.0", "exponents overflow"),
    Mutant(KERNELS, "first.mul_(spread)", "first", "no coefficients for rank 1"),
    Mutant(KERNELS, "share = (exponent - largest[:, None])", "share = exponent.clone()", "shift"),
    Mutant(
        KERNELS, "odds.sigmoid_() / count[:, None]", "odds.sigmoid_()", "positives not averaged"
    ),
    Mutant(KERNELS, "pull *= push[:, None]", "pass", "pulls what is won already, pair by pair"),
    Mutant(KERNELS, "/ tau.square()", "/ tau", "gradient of the temperature"),
    Mutant(KERNELS, "of_rank * weight[:, None], 0", "of_rank, 0", "weights dropped, pair by pair"),
    # A batch with itself.
    Mutant(SELF, "out.diagonal(dim1=1, dim2=2).zero_()", "pass", "its own key"),
    Mutant(SELF, "keys - self.masks.diagonal", "keys - 0 * self.masks.diagonal", "counts itself"),
    Mutant(SELF, "self.panels[n:], start=n)", "self.panels, start=0)", "tiles visited twice"),
    Mutant(SELF, "real &= pairs.queries", "real |= pairs.queries", "padding takes part"),
    Mutant(SELF, "[self.order] = d_z", "[:] = d_z", "gradients in sorted order"),
    Mutant(SELF, "out[..., self.order] = x", "out[..., :] = x", "values in sorted order"),
    Mutant(SELF, "weight[self.order]", "weight", "weights in batch order"),
    Mutant(SELF, "d_z[columns.rows].addmm_", "d_z[columns.rows].addmm", "half of the gradient"),
    Mutant(SELF, "& (back == back[0, 0]).all()", "", "one-way tables count as uniform"),
    Mutant(SELF, "self._add(rows, columns", "self._add(columns, rows", "sums to the wrong side"),
    Mutant(SELF, "there[:, None, :], back", "there[:, None, :], 0 * back", "one of two pairs"),
    Mutant(SELF, "coefficient.baddbmm_", "coefficient.baddbmm", "one of two pairs, by class"),
    Mutant(SELF, "order[first[order].argsort", "order[first.argsort", "order lost"),
    Mutant(SELF, "source.key_valid is not None", "False", "invalid keys take part"),
    Mutant(POSITIVE, "first[:, None] + step", "first[:, None] + 0 * step", "the same query"),
    Mutant(POSITIVE, "gradient.mT)", "-gradient.mT)", "keys pushed instead of pulled"),
    Mutant(POSITIVE, "step < size[:, None]", "step <= size[:, None]", "a query of the next class"),
    Mutant(POSITIVE, "runs = runs[taken:]", "runs = runs[taken + 1 :]", "a run is left out"),
    # Ranks of pairs.
    Mutant(
        PAIRS,
        "self.table[self.query_labels[rows, None], self.key_labels[None, cols]]",
        "self.table.T[self.query_labels[rows, None], self.key_labels[None, cols]]",
        "table read the wrong way round",
    ),
    Mutant(PAIRS, "row_index == col_index", "row_index == col_index + 1", "ignores a neighbour"),
    Mutant(PAIRS, "~key_valid[None, cols]", "key_valid[None, cols]", "empty slots are used"),
    Mutant(PAIRS, "~key_valid[None, cols], IGNORED", "~key_valid[None, cols], 0", "are negatives"),
    Mutant(
        PAIRS,
        "device=ranks.device)[None, cols]",
        "device=ranks.device)[None, : ranks.shape[1]]",
        "a tile ignores the wrong diagonal",
    ),
    Mutant(PAIRS, "low >= IGNORED and", "low >= -5 and", "codes below -1 pass"),
    Mutant(
        PAIRS, "torch.where(key_valid, self.key_labels, 0)", "self.key_labels", "-1 is looked up"
    ),
    Mutant(
        "core/distributed.py", "total[process_index() * rows :]", "total", "another one's gradient"
    ),
    Mutant("core/distributed.py", "dist.all_reduce(total)", "pass", "no gradient from the others"),
    Mutant(
        "core/distributed.py",
        "dist.reduce_scatter_single(own, total)",
        "own.copy_(total[:rows])",
        "no gradient from the others, since torch 2.14",
    ),
    Mutant("core/distributed.py", "total * world_size() /", "total /", "mean over one process"),
    Mutant(
        "core/distributed.py", ".roll(-process_index()", ".roll(process_index()", "own not first"
    ),
    # Gradient caching.
    Mutant(CACHED, "_set_random_state(before, ctx.device)", "pass", "other dropout in pass two"),
    Mutant(CACHED, "buffers = _copied(ctx.buffers)", "buffers = {}", "statistics count twice"),
    Mutant(CACHED, "total[i] + g", "g", "gradient of the last micro-batch only"),
    Mutant(CACHED, "count * i // parts", "min(count, size * i)", "a last part of one image"),
    Mutant(CACHED, "_set_random_state(now, ctx.device)", "pass", "generator left where it was"),
    Mutant(CACHED, "tie_weights=False", "tie_weights=True", "tied weights"),
    # Balanced batches.
    Mutant(SAMPLER, "[self.process_index ::", "[0 ::", "all processes see the same"),
    Mutant(SAMPLER, "self.seed, epoch))", "self.seed))", "every epoch is the same"),
    Mutant(SAMPLER, "own[torch.randperm(len(own), generator=generator)]", "own", "not mixed"),
    Mutant(SAMPLER, "most = count if len(group) >= m else None", "most = None", "a class twice"),
    Mutant(SAMPLER, "len(m) >= classes_per_superclass", "len(m) >= 0", "lonely ones fill slots"),
    Mutant(SAMPLER, "float(len(self._images[c])) for c", "1.0 for c", "small classes too often"),
    Mutant(SAMPLER, "sum(len(self._images[c]) for c in group)", "len(group)", "small groups too"),
    Mutant(SAMPLER, "shares.sum() + offset)", "shares.sum())", "rounds down"),
    Mutant(SAMPLER, "left == remaining] = -1.0", "left == remaining] *= 1", "too late for some"),
    Mutant(
        SAMPLER, "in torch.randperm(bins, generator=generator).tolist()", "in range(bins)", "late"
    ),
    Mutant(SAMPLER, "again[~repeated], again[repeated]", "again", "an image twice in a pack"),
    Mutant(SAMPLER, "(labels == c).nonzero()", "(labels >= c).nonzero()", "other classes' images"),
    # Queue and momentum encoder.
    Mutant("models/queue.py", "self.valid[slots] = True", "pass", "filled slots stay ignored"),
    Mutant(
        "models/queue.py", "self.position + count - kept", "self.position", "start after a flood"
    ),
    Mutant("models/queue.py", "self.labels[slots] = labels[count - kept :]", "pass", "no labels"),
    Mutant("models/momentum.py", "1 - self.momentum)", "self.momentum)", "follows too fast"),
    Mutant("models/momentum.py", "copy.deepcopy(online)", "online", "an alias, not a copy"),
    # Metrics.
    Mutant(RETRIEVAL, "(best < k)", "(best <= k)", "R@k is R@(k + 1)"),
    Mutant(RETRIEVAL, "all_above[:, -1] - positives_above[:, -1]", "all_above[:, -1]", "R@k late"),
    Mutant(RETRIEVAL, "positives_above.double() / all_above", "1.0 / all_above", "not precision"),
    Mutant(RETRIEVAL, "num_valid.clamp(min=1)", "precision.shape[1]", "mean over the longest row"),
    Mutant(RETRIEVAL, "offset=rows.start).fill_", "offset=0).fill_", "finds itself after chunk 1"),
    Mutant(RETRIEVAL, "measured[measured[:, 0] > 0]", "measured", "counts queries without match"),
    Mutant(KNN, "above + at_last * share", "above + at_last * 1.0", "ties do not share"),
    Mutant(KNN, "correct / len(query_features)", "correct / num_items", "share of the gallery"),
    Mutant(KNN, "((values - best) / temperature)", "((values - best) * temperature)", "flat votes"),
    Mutant(OOD, "ball=1.0, sign=1", "ball=2.0, sign=1", "Mahalanobis twice as far"),
    Mutant(OOD, "/ 2 + log_volume", "/ 2", "likelihood without the volume"),
    Mutant(OOD, "torch.minimum(best, shape", "torch.maximum(-best, shape", "farthest class"),
    Mutant(OOD, "math.sqrt((1 - weight) / size)", "math.sqrt(weight / size)", "shares exceed 1"),
    Mutant(OOD, "log_volume + (dim - size) / 2", "log_volume + dim / 2", "volume of n dimensions"),
    Mutant(OOD, "1 / weight, -1, log_volume", "1 / weight, 1, log_volume", "spread counts twice"),
    Mutant(OOD, "few = size < dim", "few = size > dim", "the inversion lemma the wrong way round"),
    Mutant(OOD, "1e-6 * highest.max()", "0 * highest.max()", "rounding hides a singular matrix"),
    Mutant(OOD, "inliers, outliers, right=True", "inliers, outliers", "ties count as lost"),
    Mutant(
        OOD, "(inliers >= ordered[caught - 1])", "(inliers > ordered[caught - 1])", "ties at FPR"
    ),
    Mutant(OOD, "math.ceil(tpr", "math.floor(tpr", "catches too few"),
    Mutant(OOD, "return -temperature * torch", "return temperature * torch", "energy's sign"),
    Mutant(OOD, "topk(k, dim=1).values[:, -1]", "topk(k, dim=1).values[:, 0]", "nearest for k-th"),
    Mutant(
        ORDER, "(s_better[:, 0] > most_similar)", "(s_better[:, 0] >= most_similar)", "ties win"
    ),
    Mutant(ORDER, "(n_better > 0) & (n_worse > 0)", "n_better > 0", "no rival counts"),
    Mutant(ORDER, "(n_worse - 1).clamp(min=0)", "(n_worse * 0)", "beats the least similar only"),
    Mutant(ORDER, "2 * won[usable]", "won[usable]", "correlation not centred"),
    Mutant(ORDER, "(similarity + 1) * (bins / 2)", "similarity.abs() * bins", "histogram of |cos|"),
    Mutant(ORDER, "return (rank == NEGATIVE, rank)", "return (False, rank)", "negatives first"),
    Mutant(
        PROBE, "torch.full_like(error[:, :1], -1.0)", "error[:, :1] * 0", "never told the class"
    ),
    Mutant(PROBE, "rate = lr * gamma **", "rate = lr + 0 * gamma **", "no learning-rate steps"),
    Mutant(
        PROBE, "probe.logits(test_features), test", "probe.logits(train_features), test", "cheats"
    ),
    Mutant(PROBE, "double() - weight @ mean", "double() + weight @ mean", "wrong bias"),
    # Ranks from scores.
    Mutant(SCORES, "self.scores >= cuts[:", "self.scores > cuts[:", "a threshold is reached"),
    Mutant(SCORES, "range(num_ranks, 1, -1)", "range(2, num_ranks + 1)", "the better rank wins"),
    Mutant(SCORES, "table.fill_diagonal_(1)", "table", "a class has rank 1 with itself"),
    Mutant(SCORES, 'IGNORED if missing == "ignore"', "NEGATIVE if missing", "missing: ignored"),
    Mutant(ITEMS, "scores >= cut", "scores > cut", "a threshold is reached"),
    Mutant(ITEMS, "scores >= cut", "scores.double() >= cut", "float32 thresholds"),
    Mutant(ITEMS, "found[scores.isnan()] = IGNORED", "pass", "not judged is no negative"),
    Mutant(ITEMS, "found.fill_diagonal_(IGNORED)", "pass", "an item and itself"),
    Mutant(
        ITEMS,
        "reversed(list(enumerate(self.thresholds, 1)))",
        "list(enumerate(self.thresholds, 1))",
        "the better rank wins",
    ),
    Mutant(ITEMS, "(matrix == code).any(dim=1)", "(matrix == code).any(dim=0)", "queries"),
    Mutant(ITEMS, "known = scores[~scores.isnan()]", "known = scores.nan_to_num()", "unknown"),
    Mutant(MEASURES, "- both)", "+ both)", "Jaccard's union"),
    Mutant(MEASURES, "(query_labels != 0).float()", "(query_labels == 0).float()", "labels kept"),
    Mutant(MEASURES, "p=1)", "p=2)", "several targets: L1"),
    Mutant(MEASURES, "torch.cat([edges, edges.flip(0)], dim=1)", "edges", "both directions"),
    Mutant(MEASURES, "& closeness.isinf()", "", "the shortest way counts"),
    Mutant(MEASURES, "max_hops + 1):", "max_hops):", "as far as asked"),
    Mutant(
        RNC,
        "torch.searchsorted(apart, apart)",
        "torch.searchsorted(apart, apart, right=True).clamp(max=count - 2)",
        "ties are competitors",
    ),
    Mutant(RNC, "logits.flip(1).logcumsumexp(dim=1).flip(1)", "logits.logcumsumexp(dim=1)", "far"),
    Mutant(RNC, "apart.sort(dim=1)", "apart.sort(dim=1, descending=True)", "order"),
    Mutant(RNC, "p=1)[others]", "p=2)[others]", "L1 distance of targets"),
    Mutant(RNC, "-distance / temperature", "-distance * temperature", "temperature"),
    Mutant(SCORES, "q * (len(ordered) - 1)", "(1 - q) * (len(ordered) - 1)", "quantiles: top"),
    Mutant(SCORES, "in itertools.accumulate(given)", "in given", "top k: numbers add up"),
    Mutant(SCORES, "dim=1, descending=True", "dim=0, descending=True", "top k of a query class"),
    Mutant(SCORES, ".fill_diagonal_(-math.inf)", "", "a class is not its own top k"),
    Mutant(SCORES, "self.scores[order][:, order]", "self.scores[order]", "columns are aligned"),
    Mutant(SCORES, "dtype=self.scores.dtype)", "dtype=torch.float64)", "float32 thresholds"),
    Mutant(FILES, "return scores[[position", "return scores.T[[position", "rows are queries"),
    Mutant(FILES, "position[name] for name in columns", "i for i in range(len(rows))", "row order"),
    Mutant(FILES, "else str(x) for x", "else str(float(x)) for x", "float32 in a table"),
    Mutant(
        SUMMARY,
        "torch.bucketize(values, torch.tensor(edges[1:-1]",
        "torch.bucketize(values, torch.tensor(edges[1:]",
        "the last bin is closed",
    ),
    Mutant(SUMMARY, "(tree == NEGATIVE) & (table > 0)", "(tree == NEGATIVE)", "strangers"),
    Mutant(SUMMARY, ".abs().amin(dim=2)", ".amin(dim=2)", "doubt on both sides of an edge"),
    Mutant(SUMMARY, "(table == 2).any(dim=1)", "(table > 1).any(dim=1)", "alone: without rank 2"),
    Mutant(NAMES, "found = 1 / (1 + edges.double())", "found = 1 / (2 + edges.double())", "path"),
    Mutant(NAMES, "return [int(given[1])]", "pass", "an id says which sense"),
    Mutant(NAMES, "edges >= FAR, 0)", "edges > 2 * FAR, 0)", "no common ancestor: 0"),
    Mutant(WORDNET, '("@", "@i")', '("@",)', "an instance belongs to its class"),
    Mutant(WORDNET, "int(fields[3], 16)", "1", "a sense of several words"),
    Mutant(WORDNET, "- found.keys()", "", "the shortest of several ways up"),
    Mutant(NOISE, "if g != tuple(own) and", "if", "moved into another superclass"),
    Mutant(NOISE, "(*g, name) not in above", "True", "a class is no group"),
    Mutant(NOISE, "noise.triu(1) + noise.triu(1).T", "noise", "symmetric stays symmetric"),
    Mutant(NOISE, "forgotten[columns, rows] = IGNORED", "pass", "forgotten both ways"),
    Mutant(NOISE, "noise.fill_diagonal_(0)", "noise", "no noise of a class with itself"),
    Mutant(TRAINED, "return before", "return taxonomy.class_ranks", "resumed with its ranks"),
    Mutant(TRAINED, "return scores.aligned_to(classes)", "return scores", "scores by name"),
    Mutant(TRAINED, "if changed or (", "if (", "changed options are refused"),
    Mutant(TRAINED, "not torch.equal(now.table, before.table)", "False", "changed scores refused"),
    # Ranks from time.
    Mutant(OBJECTIVES, "same.cumsum(dim=1) > 1", "same.cumsum(dim=1) > 2", "one positive"),
    Mutant(TIME, "found[apart <= limit]", "found[apart < limit]", "a gap of just near is near"),
    Mutant(TIME, "in reversed(range(len(self._gaps)))", "in range(len(self._gaps))", "best last"),
    Mutant(TIME, "torch.minimum(query[:, END]", "torch.maximum(query[:, END]", "gap, not reach"),
    Mutant(TIME, " & (query[:, SHOT] != NO_SHOT)", "", "unknown shots are not the same"),
    Mutant(TIME, " & (query[:, END] == key[:, END])", "", "the same clip ends alike"),
    Mutant(TIME, "masked_fill(~same_video, NEGATIVE)", "clone()", "other videos"),
    Mutant(TIME, "limit[rows] if", "limit[: rows.stop] if", "fractions of the block's rows"),
    Mutant(TIME, "dtype=torch.float64).cpu()", "dtype=torch.float32).cpu()", "microseconds"),
    Mutant(TIME, "return 1 + max(len(self.near)", "return 1 + min(len(self.near)", "ranks"),
    Mutant(TIME, "torch.arange(len(tile))", "torch.arange(0)", "an item and itself is no pair"),
    Mutant(TIME, "pairs[-2] += elsewhere", "pass", "pairs of two videos are counted"),
    Mutant(TIME, "same_video & (apart < 0)", "same_video & (apart <= 0)", "neighbours touch"),
    Mutant(TIME, "same_video & (apart < 0)", "apart < 0", "clips of two videos do not overlap"),
    # Texts.
    Mutant(TEXTS, "tokens=self.tokens[chosen]", "tokens=self.tokens[: len(chosen)]", "subset"),
    Mutant(TEXTS, "(self.taxonomy.paths, *zip(", "(0, *zip(", "the tree is a part of the texts"),
    Mutant(TEXTS, '"utf-8-sig", newline', '"utf-8", newline', "a mark in front"),
    Mutant(TEXTS, "enumerate(stream, 1)", "enumerate(stream)", "the line in the file"),
    Mutant(TEXTS, '"" if x is None else str(x)', "str(x)", "null is empty"),
    Mutant(TEXT_SOURCES, "levels[::-1]", "levels", "from coarse to fine"),
    Mutant(TEXT_SOURCES, "c not in (column, SPLIT)", "c != column", "the split is no label"),
    Mutant(TEXT_SOURCES, "column, levels, train.taxonomy)", "column, levels)", "one tree"),
    Mutant(TEXT_SOURCES, "drop_duplicates(train, test)", "drop_duplicates(train)", "of the test"),
    Mutant(TEXT_SOURCES, "cells[SPLIT].lower()", "cells[SPLIT]", "Test is test"),
    Mutant(TEXT_SOURCES, "first.setdefault(path, line)", "first[path] = line", "the first line"),
    Mutant(TEXT_SOURCES, "found[there[0]]", "found[there[-1]]", "val before test"),
    Mutant(TEXT_SOURCES, "at_most(test, test_per_class", "at_most(test, per_class", "test texts"),
    Mutant("data/batches.py", "tokens[indices],) * 2", "tokens[indices],)", "two views"),
    Mutant(TEXT_MODELS, '"attention_mask": mask', '"attention_mask": mask * 0 + 1', "padding"),
    Mutant(TEXT_MODELS, "Backbone(encoder.train()", "Backbone(encoder", "dropout is on"),
    Mutant(TEXT_MODELS, "stack[len(stack) - layers :]", "stack[:layers]", "the last layers"),
    Mutant(TEXT_MODELS, "requires_grad_(gradient is not None)", "data", "an unread pooler"),
    Mutant(TEXT_MODELS, "min(bounds)", "max(bounds)", "the smaller bound"),
    Mutant(TEXT_MODELS, "padding_value=PADDING", "padding_value=0", "padding is no token"),
    Mutant(TEXT_MODELS, "real.sum(dim=1).max()", "real.sum(dim=1).min()", "the longest text"),
    Mutant("training/splits.py", "list(texts.texts), most)", "list(texts.texts))", "cut texts"),
    # Clips of videos.
    Mutant(VIDEO, "self._seek(times[0] + self._early)", "self._rewind()", "only what is needed"),
    Mutant(VIDEO, "start = min(0, self.stream.start_time or 0)", "start = 5000", "from the start"),
    Mutant(VIDEO, "if shown is None and not from_start:", "if False:", "no key frame is left"),
    Mutant(
        VIDEO,
        "bisect_right(begins, time + self._early + origin) - 1",
        "bisect_right(begins, time + self._early + origin)",
        "torchcodec: the frame before",
    ),
    Mutant(VIDEO, "time + self._early + origin", "time + origin", "torchcodec: rounded times"),
    Mutant(
        VIDEO,
        'require(abs(frame.pts_seconds - begins[number]) < 1e-4, "another frame")',
        "pass",
        "torchcodec: the frame that was meant",
    ),
    Mutant(VIDEO, "self.shown_at(times[done:])", "self.shown_at(times)", "PyAV goes on from there"),
    Mutant(VIDEO, "if module.ffmpeg_major_version", "if module", "torchcodec without FFmpeg"),
    Mutant(
        SOURCES, "by_time or videos >= images", "videos >= images", "ranks from time mean videos"
    ),
    Mutant(SOURCES, "videos >= images)", "videos > images)", "a thumbnail each"),
    Mutant(
        SOURCES,
        "clips = replace(clips, decoder=decoder)\n    if cache",
        "if cache",
        "the decoder is used",
    ),
    Mutant(VIDEO, "frame.rotation / 90", "-frame.rotation / 90", "upright"),
    Mutant(VIDEO, "waiting[-1] > end + early", "False", "a file that was cut short"),
    Mutant(
        VIDEO,
        "time > waiting[0] + early:\n                yield",
        "time > waiting[0]:\n                yield",
        "rounded times",
    ),
    Mutant(CLIPS, "!= _check_sum(pixels)", "== 0", "a clip written halfway"),
    Mutant(CLIPS, "order[: max(0, max_bytes // size)]", "order", "the cache has a bound"),
    Mutant(CLIPS, "room = seconds - span + 1e-6", "room = seconds", "a whole clip fits"),
    Mutant(SOURCES, "offsets + begin, end, shot", "begin, end, shot", "times in the source"),
    Mutant(SOURCES, 'code == "2"', 'code == "1"', "HMDB51: 2 is the test"),
    Mutant(
        SOURCES, "test[sources[video]] = True", "test[sources[video][:1]] = True", "whole sources"
    ),
    Mutant(
        VIEWS, "self.channels, -1, self.image_size", "-1, self.channels, self.image_size", "frames"
    ),
    Mutant(TIMES, "similarity >= best", "similarity > best", "ties count against"),
    Mutant(TIMES, " & (tile != IGNORED)", "", "ignored pairs do not stand in the way"),
    Mutant(TIMES, "(tile <= worst_rank)", "(tile >= worst_rank)", "ranks up to the worst"),
    Mutant(
        TIMES, "logits.double().softmax(dim=1)", "logits.double()", "probabilities are averaged"
    ),
    Mutant(TIMES, "right=True) - 1", "right=False) - 1", "a range holds its start"),
    # NDCG.
    Mutant(GRADED, "places < k", "places <= k", "one place too many"),
    Mutant(GRADED, "(places + 2.0)", "(places + 3.0)", "discount of the first place is 1"),
    Mutant(GRADED, "(~tied).cumsum(dim=1)", "torch.ones_like(tied).cumsum(dim=1)", "ties"),
    Mutant(GRADED, "(best @ discount)", "(best @ discounts[max(ks)])", "ideal order up to k"),
    Mutant(GRADED, "/ size.clamp(min=1)", "", "tied items share a gain"),
    # Inside pytorch-metric-learning.
    Mutant(PML, "found[active]", "found", "queries that cannot learn are counted"),
    Mutant(PML, "active.nonzero()[:, 0]", "torch.arange(int(active.sum()))", "labels of others"),
    Mutant(PML, "is_inverted else -matrix", "is_inverted else matrix", "pushes positives apart"),
    Mutant(PML, "given[anchor, positive] = 1", "given[anchor, positive] = 0", "no positives"),
    Mutant(PML, "given[other, negative] = NEGATIVE", "pass", "no negatives"),
    Mutant(PML, "masked_fill(given == IGNORED, IGNORED)", "clone()", "miners choose nothing"),
    Mutant(PML, "in_batch = ref_emb is embeddings", "in_batch = True", "references taken for own"),
    Mutant(PML, "self.distance.power == 1", "True", "power of the cosine forgotten"),
    Mutant(PML, "functional.normalize(query, dim=1)", "query", "cosine without norms"),
    Mutant(PML, "(losses.CrossBatchMemory, losses.SelfSupervisedLoss)", "()", "not known by name"),
    # Inside sentence-transformers.
    Mutant(ST, "torch.tensor(places)] = IGNORED", "torch.tensor(places)] = 0", "known duplicates"),
    Mutant(ST, "torch.tensor(rows)[:, None]", "row", "a query that stands twice"),
    Mutant(ST, "ranks[own.row, torch.arange(len(documents))] = own.rank", "pass", "own ranks"),
    Mutant(ST, "place, row = there.T.nonzero", "row, place = there.nonzero", "column by column"),
    Mutant(ST, "torch.arange(1, self.num_ranks + 1)", "1", "a column a rank"),
    Mutant(ST, "if text is not None and grade is not None", "if text is not None", "no grade"),
    Mutant(ST, "there = ~grades.isnan()", "there = grades > 0", "a grade of 0 is a document"),
    Mutant(ST, "functional.normalize(z, dim=1) for z", "2 * z for z", "unit length"),
    Mutant(ST, "x[rows] if isinstance", "x if isinstance", "micro-batches are small"),
    Mutant(
        ST, "if any(grades.get(key, {}).values())", "if key in grades", "queries without a grade"
    ),
    Mutant(ST, "encode_document(list", "encode_query(list", "documents' prompt"),
    Mutant(ST, "= micro_batch is not None", "= False", "wrappers are told"),
    # The compiler: left alone by those who do not compile, and leaving the loss alone.
    Mutant(STREAMED, "if torch.compiler.is_compiling():", "if True:", "seconds of import"),
    Mutant(STREAMED, "if torch.compiler.is_compiling():", "if False:", "graphs in pieces"),
    # Exports and embeddings of a folder.
    Mutant(EXPORTED, "module=module.eval(), **facts", "module=module, **facts", "evaluation mode"),
    Mutant(EXPORTED, "pixels.float() / 255 - mean", "pixels.float() - mean", "bytes are scaled"),
    Mutant(EXPORTED, "for x in (self.mean, self.std)", "for x in (self.std, self.mean)", "order"),
    Mutant(EXPORTED, "self.image_size, self.mean, self.std)\n", "self.mean, self.std)\n", "size"),
    Mutant(EXPORTED, "(self.backbone, self.in_channels", "(self.in_channels", "architecture"),
    Mutant(EXPORTED, "self.image_size, self.mean, self.std)\n", "self.image_size)\n", "colours"),
    Mutant(
        WEIGHTS,
        "module.state_dict().items():",
        "module.named_parameters():",
        "batch norm's statistics are part of the network",
    ),
    Mutant(WEIGHTS, "x.cpu().contiguous().flatten()", "x.cpu().flatten()[:1]", "all weights"),
    Mutant(EXPORTED, 'facts["format"] != FORMAT', "False", "a format of later"),
    Mutant(EXPORTED, 'facts["embedding_dim"] is not None', "False", "the head is built"),
    Mutant(EXPORTED, 'facts["embedding_dim"], facts["num_heads"]', 'facts["embedding_dim"]', "two"),
    Mutant(EXPORTED, "    load_strictly(module, weights, file)\n", "", "weights are loaded"),
    Mutant(ONNX, "not worst <= TOLERANCE", "False", "other numbers are refused"),
    Mutant(ONNX, "not worst <= TOLERANCE", "worst > TOLERANCE", "NaN is refused, too"),
    Mutant(ONNX, '({0: torch.export.Dim("batch")},)', "None", "batches of any size"),
    Mutant(ONNX, "external_data=False", "external_data=True", "one file"),
    Mutant(CHECKPOINT, "head=trained.head)).eval()", "head=trained.head))", "evaluation mode"),
    Mutant(
        CHECKPOINT,
        "        load_strictly(head, _below",
        "        (lambda *_: 0)(head, _below",
        "head",
    ),
    Mutant(
        CHECKPOINT, "embedding_dim if head else None", "embedding_dim", "features are no embeddings"
    ),
    Mutant(CHECKPOINT, "None if trained.own_backbone else", "", "a module of one's own"),
    Mutant(CHECKPOINT, "width = embedding_dim * num_heads", "width = embedding_dim", "two heads"),
    Mutant(
        EVALUATE,
        "logits.argmax(dim=1) == test.labels",
        "logits.argmax(dim=1) >= 0",
        "a classifier's own accuracy",
    ),
    Mutant(
        EVALUATE,
        "classifier is not None and own_classes",
        "classifier is not None",
        "not on other classes",
    ),
    Mutant(
        EVALUATE,
        "video_accuracy(logits, test.labels, videos)",
        "float(hits.double().mean())",
        "a classifier's own accuracy over videos",
    ),
    Mutant(CLASS_MEANS, "(query @ gallery.T)", "(query @ query.T)", "test against training"),
    Mutant(CLASS_MEANS, "torch.bincount(labels, minlength=num_classes)", "1", "means, not sums"),
    Mutant(CLASS_MAPS, "np.mean(same, axis=0)", "same[0]", "the mean over runs"),
    Mutant(CLASS_MAPS, "if np.array_equal(s.order, found[0].order)", "", "of the same classes"),
    Mutant(CLASS_MAPS, "(rank > 0, -rank)", "(rank > 0, rank)", "the best rank is brightest"),
    Mutant(
        CLASS_MAPS,
        "(np.flatnonzero(np.diff(groups)) + 1)",
        "np.flatnonzero(np.diff(groups))",
        "where a group starts",
    ),
    Mutant(CURVES, "set.intersection", "set.union", "steps that all runs logged"),
    Mutant(CURVES, "logged = [run for run in logged if run]", "", "runs that did not log it"),
    Mutant(CURVES, "if math.isfinite(value)}", "}", "steps with a value"),
    Mutant(FIGURES, "ddof=1) if len(stacked) > 1", "ddof=0) if len(stacked) > 1", "sample sd"),
    Mutant(
        FIGURES,
        "if np.array_equal(histogram.edges, histograms[0].edges):",
        "if True:",
        "bins of their own are not averaged",
    ),
    Mutant(FIGURES, "if np.array_equal(c.seconds, seconds)]", "]", "curves of the same gaps"),
    Mutant(ORIGINS, "statistics.stdev(known)", "statistics.pstdev(known)", "spread of wall times"),
    Mutant(ORIGINS, '", ".join(dict.fromkeys(values))', '", ".join(values)', "a version once"),
    Mutant(METHODS, "elif not classes and", "elif", "runs that have class maps are not blamed"),
    Mutant(CLASS_MAPS, "if runs < len(evaluations):", "if False:", "a mean over some runs says so"),
    Mutant(CURVES, "if len(line.points) > 1]", "if len(line.points)]", "a point is no curve"),
    Mutant(ORIGINS, ' and key.rpartition(".")[2] not in _NAMES', "", "names are no difference"),
    Mutant(ORIGINS, 'if key.endswith("seconds")', "if False", "times of evaluations are times"),
    Mutant(ORIGINS, "MISSING if value is None else", "", "what one run's evaluation lacks"),
    Mutant(PAGE, "{detector}/AUROC", "gaussian/AUROC", "each detector its own AUROC"),
    Mutant(CARD, "fill_diagonal_(-2)", "clone()", "pairs of different classes"),
    Mutant(CARD, 'value.startswith(("/", "~"))', 'value.startswith("/")', "folders of a home"),
    Mutant(CARD, "if name not in _PRIVATE", "", "the machine's own settings stay out"),
    Mutant(CARD, 'config["objective"] != "rince"', "False", "others know no ranks"),
    Mutant(CARD, "if not about:", "if about is None:", "a run that is not finished"),
    Mutant(CARD, '"Not evaluated."', '""', "no results are said to be none"),
    Mutant(EXPORT, "if is_evaluated(folder) else None", "", "results of older weights"),
    Mutant(EXPORT, "if folder.exists():", "if False:", "a card with a licence stays"),
    Mutant(EXPORT, "head=head)", "head=False)", "with the head, if asked for"),
    Mutant(SEARCH, "queries.model != gallery.model", "False", "another network's gallery"),
    Mutant(SEARCH, "{place + 1:5}", "{place:5}", "the first is number 1"),
    Mutant(SEARCH, 'os.fsencode(path).decode(errors="replace")', "path", "names beyond Unicode"),
    Mutant(
        EMBEDDINGS, "encoder.normalised(pixels), positions", "pixels / 255, positions", "normalised"
    ),
    Mutant(
        EMBEDDINGS, "files[i] for i in found.labels.tolist()", "files[: len(found)]", "left out"
    ),
    Mutant(
        EMBEDDINGS,
        'unit_features(found.features, "embeddings"),\n',
        "found.features,\n",
        "length 1",
    ),
    Mutant(
        EMBEDDINGS, "min(k, len(gallery)), dim=1", "min(k, len(gallery)), 1, False", "the nearest"
    ),
    Mutant(EMBEDDINGS, "torch.cat([x.values for x in found])", "found[0].values", "every chunk"),
    Mutant(
        EMBEDDINGS,
        "    _require_suffix(file)\n    if not file.parent",
        "    if not file.parent",
        "early",
    ),
    Mutant(
        EMBEDDINGS, "arrow.array(vectors.ravel())", "arrow.array(vectors.T.ravel())", "row by row"
    ),
    # The same of runs on texts and videos.
    Mutant(CHECKPOINT, "model.prompts, model.default_prompt_name = {}, None", "", "kinds: prompts"),
    Mutant(CHECKPOINT, "model.max_seq_length = min(bounds)", "pass", "kinds: texts are cut"),
    Mutant(CHECKPOINT, "if head or not isinstance(enc", "if not isinstance(enc", "kinds: no head"),
    Mutant(CHECKPOINT, "videos.frame_size or trained", "trained", "kinds: decoded at its size"),
    Mutant(CHECKPOINT, '"stride": videos.stride', '"stride": 1', "kinds: every other frame"),
    Mutant(TEXT_MODELS, "fingerprint((self.model.max_seq_length,)", "fingerprint(()", "kinds: cut"),
    Mutant(
        TEXT_MODELS, "file.chmod((folder / SENTENCE_FILE).stat().st_mode)", "pass", "kinds: modes"
    ),
    Mutant(
        TEXTS,
        "[line.strip() for line in lines if line",
        "[line for line in lines if line",
        "kinds: blanks at the ends",
    ),
    Mutant(TEXTS, '"utf-8-sig").splitlines()', '"utf-8").splitlines()', "kinds: the mark of UTF-8"),
    Mutant(EMBED, "column or encoder.column", "encoder.column", "kinds: the column asked for"),
    Mutant(EMBED, '"skip" if skip else "error"', '"error"', "kinds: unreadable videos"),
    Mutant(EXPORTED, "(*facts, *clips)", "facts", "kinds: how clips are cut is part of it"),
    Mutant(EXPORTED, '"image_size", "frames")', '"image_size")', "kinds: built for clips"),
    Mutant(
        EMBEDDINGS,
        "fit(torch.stack([clip for _, clip in batch]))",
        "torch.stack([clip for _, clip in batch])[..., 4:-4, 4:-4]",
        "kinds: scaled as for the evaluation",
    ),
    Mutant(EMBEDDINGS, 'unit_features(found, "embeddings")', "2 * found", "kinds: length 1"),
    Mutant(CLIPS, 'yield f"{file}@{start:.3f}"', 'yield f"{file}@{0:.3f}"', "kinds: start"),
    Mutant(
        CLIPS,
        "+ k * step for k in range(frames)]\n                yield",
        "+ k / info.rate for k in range(frames)]\n                yield",
        "kinds: the stride",
    ),
    Mutant(CLIPS, "hop or span, most", "hop or step, most", "kinds: they touch"),
    Mutant(BELOW, 'if entry.name.startswith("."):', "if False:", "kinds: hidden folders"),
    Mutant(SOURCES, "if not short(s)", "if s", "short: what fits all"),
    Mutant(SOURCES, "sum(not cut(info", "sum(bool(info) or not cut(info", "short: how many"),
    Mutant(BELOW, "os.path.isdir(entry.path) if link else ", "", "short: links to themselves"),
    Mutant(BELOW, "if folder.resolve() in seen:", "if False:", "short: loops of links"),
    Mutant("reports/table.py", " if count > 1 else name", "", "short: one run keeps its seed"),
    Mutant(
        "training/config.py",
        "if frames is None else CLIP_BACKBONE",
        "if frames is None else IMAGE_BACKBONE",
        "short: clips have their own backbone",
    ),
    Mutant("cli/parser.py", 'o == f"--{last}" or ', "", "short: an option of no group"),
    Mutant(CLIPS, "count + len(reasons)", "len(reasons)", "kinds: some can be read"),
    Mutant(CARD, 'config["ranks"]["by"] == "time"', "False", "kinds: times are no class ranks"),
    Mutant(CARD, "`{_last_part(encoder.backbone)}`", "`{encoder.backbone}`", "kinds: no folders"),
    Mutant(
        IMAGES,
        "            failures.append(result)\n",
        "            pass\n",
        "left out with a warning",
    ),
    Mutant(
        IMAGES, "            yield index, result\n", "            yield 0, result\n", "positions"
    ),
)


class Verdict(NamedTuple):
    killed: bool
    by: str
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run mutants whose file or reason holds this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    found = parser.parse_args()
    chosen = [m for m in MUTANTS if found.only in m.file or found.only in m.why]
    start = time.perf_counter()
    healthy = run_tests(sorted({test for m in chosen for test in TESTS[m.file].split()}), None)
    if healthy.killed:
        print(f"the tests fail without any mutant ({healthy.by}): mend that first")
        return 1
    survivors = []
    with ThreadPoolExecutor(found.jobs) as pool:
        for mutant, verdict in zip(chosen, pool.map(judge, chosen), strict=True):
            state = "killed  " if verdict.killed else "SURVIVED"
            print(
                f"{state} {mutant.file}: {mutant.why} [{verdict.by}] {verdict.seconds:.0f} s",
                flush=True,
            )
            if not verdict.killed:
                survivors.append(mutant)
    minutes = (time.perf_counter() - start) / 60
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants killed in {minutes:.1f} min")
    for mutant in survivors:
        print(f"survivor in {mutant.file}:\n  - {mutant.original}\n  + {mutant.mutated}")
    return 1 if survivors else 0


def judge(mutant: Mutant) -> Verdict:
    """Run the module's tests against a copy of the source that holds the mutant."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source)
        file = source / "rince" / mutant.file
        text = file.read_text()
        if text.count(mutant.original) != 1:
            raise SystemExit(
                f"{mutant.file} holds {mutant.original!r} {text.count(mutant.original)} times: "
                f"bring this mutant up to date"
            )
        file.write_text(text.replace(mutant.original, mutant.mutated))
        compile(file.read_text(), str(file), "exec")  # a syntax error would be an easy kill
        return run_tests(TESTS[mutant.file].split(), source)


def run_tests(tests: list[str], source: Path | None) -> Verdict:
    """Killed means: pytest ran and a test failed. Anything else but a pass is an error here."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    if source is not None:
        environment["PYTHONPATH"] = str(source)
    start = time.perf_counter()
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no"),
            *("-p", "no:cacheprovider", "--hypothesis-profile=mutants", *tests),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    failed = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if result.returncode not in (0, 1) and not failed:
        raise SystemExit(f"pytest could not run:\n{result.stdout}\n{result.stderr}")
    by = failed[0].split(" - ")[0].partition("::")[2] if failed else "all tests pass"
    return Verdict(result.returncode != 0, by, time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
