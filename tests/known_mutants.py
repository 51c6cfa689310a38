"""What tests/mutants.py is told: mutants made by hand, and those that change nothing.

The code that the latter were judged by stands in equivalent_mutants.txt.
"""

from __future__ import annotations

from typing import NamedTuple


class Hand(NamedTuple):
    """A mutant made by hand: the one place in a function that fits a pattern.

    Args:
        room: or module, below the package. function: with its class; "" if it may be any.
        pattern: an expression; a name of one capital letter stands for any expression.
        replacement: an expression, with these names. why: what it would be, if it were right.
    """

    room: str
    function: str
    pattern: str
    replacement: str
    why: str


LESS_SIMILAR = "(A > B) | (A == 0)"
POSITIVE = "A if positives == 'cumulative' else B == C"
SOFTPLUS = "torch.logaddexp(A, torch.zeros_like(A))"
LOG_SUM = "torch.logsumexp(A, dim=1)"
FINER = "pair_loss.masked_fill(A, B).max()"

HAND_MADE: tuple[Hand, ...] = (
    # The formula: which keys stand in which term, at which temperature, in which form.
    Hand("losses", "sides_of", LESS_SIMILAR, "(A != B) & (A >= 0)", "better ranks compete"),
    Hand("losses", "sides_of", LESS_SIMILAR, "(A > B) | (A <= 0)", "ignored keys compete"),
    Hand("losses", "sides_of", LESS_SIMILAR, "A == 0", "worse ranks do not compete"),
    Hand(
        "losses",
        "sides_of",
        POSITIVE,
        "A if positives == 'cumulative' else B >= C",
        "worse ranks are positives",
    ),
    Hand("losses", "rank_terms", "similarity / A", "similarity / taus[0]", "one temperature"),
    Hand(
        "losses",
        "rank_terms",
        "enumerate(taus, start=1)",
        "enumerate(taus[::-1], start=1)",
        "swapped",
    ),
    Hand(
        "losses",
        "rank_terms",
        "enumerate(taus, start=1)",
        "enumerate(taus[:2], start=1)",
        "two ranks",
    ),
    Hand("losses", "rank_terms", "F(A[:, None] - B)", "F(B - A[:, None])", "pushes positives away"),
    Hand(
        "losses",
        "rank_terms",
        "mean_over_mask(A, B)",
        "mean_over_mask(A, B) * B.sum(dim=1)",
        "sum over the positives",
    ),
    Hand(
        "losses",
        "rank_terms",
        "F(A - masked_logsumexp(B, C))",
        "F(A - mean_over_mask(B, C))",
        "mean for the log of the sum",
    ),
    Hand(
        "losses",
        "RankTerms.mean_per_rank",
        "A.sum(dim=1).clamp(min=1)",
        "A.shape[1]",
        "mean over all",
    ),
    # Numbers that only some inputs tell.
    Hand("losses", "", SOFTPLUS, "torch.log1p(A.exp())", "overflows at temperature 0.01"),
    Hand(
        "losses", "", SOFTPLUS, "torch.log(1 + A.clamp(max=80).exp())", "a small loss has no digits"
    ),
    Hand("losses", "masked_logsumexp", LOG_SUM, "A.exp().sum(dim=1).log()", "overflows"),
    Hand("losses", "masked_logsumexp", "torch.finfo(A).min", "0.0", "e^0 for absent keys"),
    Hand(
        "losses", "mean_over_mask", "A.sum(dim=1).clamp(min=1)", "A.shape[1]", "mean over all keys"
    ),
    Hand(
        "losses",
        "reduce_over_queries",
        "A.sum().clamp(min=1)",
        "A.numel()",
        "mean over all queries",
    ),
    Hand(
        "losses",
        "dtype_of_sums",
        "torch.promote_types(A, torch.float32)",
        "A",
        "half precision inside",
    ),
    Hand("losses", "similarities", "A.to(B).T", "A.detach().to(B).T", "no gradient to the keys"),
    Hand(
        "losses",
        "similarities",
        "query.to(A)",
        "query.detach().to(A)",
        "no gradient to the queries",
    ),
    # The gradients that are written out.
    Hand("losses", "", "A.sigmoid_() / B[:, None]", "A.sigmoid_()", "positives not averaged"),
    Hand("losses", "", "A / tau.square()", "A / tau", "gradient of the temperature"),
    # HiMulCon.
    Hand("losses", "himulcon", FINER, FINER + ".detach()", "no gradient to the bound"),
    Hand("losses", "himulcon", FINER, "constrained.masked_fill(A, B).max()", "the bound is kept"),
    Hand("losses", "himulcon", "torch.maximum(pair_loss, A)", "pair_loss", "no constraint"),
    # Ranks of pairs.
    Hand("core", "", "self.table[A, B]", "self.table.T[A, B]", "the table, the wrong way round"),
)

# Names of parameters, constants, functions and classes that change time and memory, no result.
TUNING = ("chunk_size", "pairs_at_once", "sort_from", "Sizes", "MB", "DENSE_BYTES")
TUNING += ("bytes_per_query", "_BLOCK", "_LOOKED_AT", "MAX_TABLE_CLASSES", "LARGEST_EXPONENT")
TUNING += ("_PATIENCE", "_SECONDS_UNTIL_SEEN", "PARTS", "_LONGEST_CELL", "gpu_sizes")
TUNING += ("default_tiles", "_programs", "_splits", "_MOST_FORMS")

# (module, function, operator, occurrence in the function) -> why no test can tell it apart.
EQUIVALENT: dict[tuple[str, str, str, int], str] = {
    ("core/digests.py", "file_digest", "Pow to Mult", 0): "of how much is read at a time",
    ("core/digests.py", "file_digest", "constant + 1", 1): "of how much is read at a time",
    ("core/digests.py", "file_digest", "constant + 1", 2): "of how much is read at a time",
    ("metrics/set_intersection.py", "average_set_intersection", "zeros_like to ones_like", 0): (
        "what all begin with is taken away from each again"
    ),
    ("losses/blockwise/by_class.py", "_softplus", "constant + 1", 0): (
        "e^80 and e^81 both swallow the 1 in float32 and in float64"
    ),
    ("losses/blockwise/by_class.py", "lists_positives", "Not dropped", 0): (
        "a mask of all keys gives what a list of the positives gives, only slower"
    ),
    ("losses/blockwise/engine.py", "_blockwise_loss", "detach dropped", 2): (
        "what is computed of it runs where no graph is made"
    ),
    ("losses/blockwise/in_batch.py", "SelfPairs.terms", "zeros_like to ones_like", 0): (
        "where no share is written the term is not active, and the share is multiplied by 0"
    ),
    ("losses/blockwise/positive_pairs.py", "_pairs_of", "constant + 1", 0): (
        "padding may be any place that is there, and where only one is nothing is padded"
    ),
    ("losses/by_query.py", "loss_by_query", "False to True", 1): (
        "no loss draws random numbers: their state is kept for nothing"
    ),
    ("losses/common.py", "check_values", "Gt to GtE", 0): (
        "0.02 has binary digits finer than any number near 1: no norm is that far from 1 exactly"
    ),
    ("losses/common.py", "check_values", "detach dropped", 0): (
        "norms are only compared, with a graph or without"
    ),
    ("losses/definition.py", "bounded", "log to log1p", 0): (
        "1 more than the largest number is that number"
    ),
    ("losses/contrastive.py", "_sum_against_all", "clamp dropped", 0): (
        "rows without a positive are left out by the caller: their -inf is not seen"
    ),
    ("losses/temperatures.py", "check_temperatures", "detach dropped", 0): (
        "tolist() reads numbers, with a graph or without"
    ),
    ("losses/temperatures.py", "match_num_ranks", "constant + 1", 0): (
        "no temperatures at all are refused before: their number is never below 1"
    ),
    ("metrics/arrays.py", "unit_rows", "Lt to LtE", 0): (
        "float() changes nothing of features that are float32 already"
    ),
    ("metrics/arrays.py", "unit_rows", "constant + 1", 0): (
        "float() changes nothing of features that are float32 already"
    ),
    ("metrics/arrays.py", "unit_rows", "constant + 1", 2): (
        "a row of zeros stays zero over any number"
    ),
    ("metrics/gaussians.py", "ClassGaussians.fit", "True to False", 2): (
        "the order of a class's members, which keeps the last bits the same everywhere"
    ),
    ("metrics/gaussians.py", "_shape", "Lt to LtE", 0): (
        "with as many samples as dimensions both ways give the same covariance"
    ),
    ("metrics/graded.py", "ndcg", "constant + 1", 6): (
        "only the ratio to the best order counts, whose discounts double as well"
    ),
    ("metrics/hierarchy.py", "_measure", "constant + 1", 3): (
        "only the ratio to the best order counts, whose discounts double as well"
    ),
    ("metrics/hierarchy.py", "_summary", "constant + 1", 0): (
        "H-AP is above 0 where a query has a positive, and else 0 / 0"
    ),
    ("metrics/hierarchy.py", "_summary", "constant + 1", 2): (
        "average precision is above 0 where a query has a positive, and else 0"
    ),
    ("metrics/knn.py", "knn_accuracy", "constant + 1", 3): (
        "sums of the same votes in two orders differ by 1e-15: nine digits hide it, as ten do"
    ),
    ("metrics/knn.py", "_votes", "Gt to GtE", 0): (
        "1 + share of k less all at or above the last place is the share of k less those above"
    ),
    ("metrics/ordered_items.py", "OrderedItems.of", "constant + 1", 13): (
        "a column more behind the last item, which nobody reads"
    ),
    ("metrics/ordered_items.py", "OrderedItems.of", "constant + 1", 16): (
        "a column more behind the last item, which nobody reads"
    ),
    ("metrics/ordering.py", "_levels", "constant + 1", 0): (
        "a rank more, which no pair has, is passed over"
    ),
    ("ranks/measures.py", "graph_closeness", "False to True", 0): (
        "edges that are checked once more are the same"
    ),
    ("ranks/measures.py", "label_overlap", "Or to And", 0): (
        "where one side is 0 or 1, the product of both is the smaller of both"
    ),
    ("ranks/options.py", "RankOptions.check", "constant + 1", 2): (
        "of no near at all the largest may be 0 or 1: both are at most 1"
    ),
    ("ranks/readers.py", "homonyms", "constant + 1", 1): (
        "a path cut beyond its end is the path, and is looked at once"
    ),
    ("ranks/readers.py", "nested_paths", "LtE to Lt", 0): (
        "a class in a group of 127 names has 128, and is refused one call later otherwise"
    ),
    ("ranks/taxonomy.py", "tree_of_folders", "constant + 1", 3): (
        "the whole path is put into the set twice"
    ),
    ("core/labels.py", "shortest_endings", "Gt to GtE", 1): (
        "a path that is whole already is the same when it is taken whole once more"
    ),
    ("ranks/score_summary.py", "_first_pairs", "constant + 1", 0): (
        "a few more pairs are sorted, which come after those that are listed"
    ),
    ("ranks/score_summary.py", "_first_pairs", "mask alone: left", 0): (
        "all pairs are sorted, only slower: those left out come after those that are listed"
    ),
    ("losses/ranked_info_nce.py", "_served_by", "Gt to GtE", 0): (
        "24 bytes times pairs and ranks is never 2**28"
    ),
    ("losses/ranked_info_nce.py", "RankedInfoNCE._apply", "True to False", 0): (
        "it holds no modules that could be gone through"
    ),
    ("losses/hierarchical.py", "smoothed_targets", "dimension", 0): (
        "the matrix is symmetric, and so are the sums of its rows and columns"
    ),
    ("losses/metric_learning.py", "hierarchical_triplet", "sum to mean", 0): (
        "it is multiplied by 0: what is wanted of it is the graph"
    ),
    ("losses/metric_learning.py", "_triplets", "Sub to Add", 0): (
        "further levels have no keys, and so no triplets"
    ),
    ("losses/metric_learning.py", "_triplets", "constant + 1", 1): (
        "a further level has no keys, and so no triplets"
    ),
    ("losses/metric_learning.py", "_triplets", "True to False", 2): (
        "torch sorts in a stable way on a CPU anyway; on a card it need not"
    ),
    ("losses/metric_learning.py", "hierarchical_triplet", "False to True", 0): (
        "torch.cdist is computed in float32 under autocast anyway: this makes sure of it"
    ),
    ("losses/metric_learning.py", "fast_ap", "False to True", 0): (
        "torch.cdist is computed in float32 under autocast anyway: this makes sure of it"
    ),
    ("losses/blockwise/fused.py", "_Fused.backward", "False to True", 1): (
        "a gradient of the temperatures more is computed, and not looked at"
    ),
    ("losses/blockwise/fused.py", "_by_class", "True to False", 0): (
        "torch sorts in a stable way on a CPU anyway; inside a class any order does"
    ),
    ("losses/blockwise/fused.py", "_by_class", "True to False", 1): (
        "torch sorts in a stable way on a CPU anyway; inside a class any order does"
    ),
    ("losses/blockwise/fused_kernels.py", "_softplus_and_sigmoid", "GtE to Gt", 0): (
        "at 0 both are 1"
    ),
    ("losses/blockwise/fused_kernels.py", "_ranks", "mask alone: right", 0): (
        "queries beyond the end are not written, and their gradient is 0"
    ),
    ("losses/blockwise/fused_kernels.py", "_ranks", "Lt to LtE", 0): (
        "queries beyond the end are not written, and their gradient is 0"
    ),
    ("losses/blockwise/fused_kernels.py", "_ranks", "constant + 1", 7): (
        "any rank above R is that of a negative"
    ),
    ("losses/blockwise/fused_kernels.py", "_ranks", "constant + 1", 8): (
        "any rank above R is that of a negative"
    ),
    ("losses/blockwise/fused_kernels.py", "pass_1_sums", "where: the first", 5): (
        "log2(0) is below LOW, and stands for nothing as well"
    ),
    ("losses/blockwise/fused_kernels.py", "pass_1_sums", "where: the first", 6): (
        "log2(0) is below LOW, and stands for nothing as well"
    ),
    ("losses/blockwise/fused_kernels.py", "pass_2_each_positive", "constant + 1", 4): (
        "holds the place of a rank of the other form"
    ),
    ("losses/blockwise/fused.py", "_Launch._run", "True to False", 0): (
        "the speed of a card, and the last bit there; in the interpreter nothing"
    ),
    ("losses/blockwise/fused.py", "_Launch.terms", "constant + 1", 0): (
        "tiles of another size give the same numbers"
    ),
    ("losses/blockwise/fused.py", "_Launch._run", "constant + 1", 0): ("the table is square"),
    ("ranks/level_ranks.py", "LevelRanks.__init__", "constant + 1", 7): (
        "any label that is known, in the place of one that is not looked at"
    ),
    ("ranks/score_ranks.py", "ScoreRanks.ranks", "False to True", 1): (
        "right ranks are checked; that no card is waited for is seen in tests/losses"
    ),
    ("ranks/time.py", "TimeRanks._blocks", "constant + 1", 2): (
        "how many rows of a very long video are looked at together: the same ranks"
    ),
    ("ranks/time.py", "TimeRanks._blocks", "FloorDiv to Mult", 0): (
        "all rows are looked at together: the same ranks, more memory"
    ),
    ("ranks/time.py", "TimePairRanks._gaps", "Eq to NotEq", 0): (
        "the same numbers by way of the CPU; only an Apple card has no float64"
    ),
    ("ranks/time.py", "_seconds", "Gt to GtE", 1): (
        "a float's spacing is a power of two, never 0.01"
    ),
    ("ranks/wordnet.py", "", "constant + 1", 0): (
        "any number larger than every path says that there is none"
    ),
    ("metrics/set_intersection.py", "_expected_minimum", "LtE to Lt", 0): (
        "both ways give the same where nothing is to spare"
    ),
    ("metrics/knn.py", "_votes", "zeros_like to ones_like", 0): ("one more for each class"),
    ("metrics/set_intersection.py", "_correct_tied_runs", "zeros_like to ones_like", 0): (
        "at the finest level there is room for all: one more is taken from those drawn"
    ),
    ("losses/blockwise/fused_kernels.py", "pass_2_each_positive", "constant + 1", 18): (
        "holds the place of a rank of the other form"
    ),
    ("losses/blockwise/fused_kernels.py", "finish", "where: the first", 1): (
        "where nothing is learned the share is 0, and its logarithm has made this infinite"
    ),
    ("losses/blockwise/fused_kernels.py", "gradient", "Gt to GtE", 0): (
        "the same columns are loaded once more"
    ),
    ("ranks/wordnet.py", "WordNetNouns.senses", "Gt to GtE", 0): (
        "of one word the same forms come once more"
    ),
    ("ranks/wordnet.py", "WordNetNouns.senses", "constant + 1", 0): (
        "words and what stands between them are 1, 3, 5, ..."
    ),
    ("ranks/wordnet.py", "WordNetNouns.distances", "constant + 1", 0): (
        "a column more, by which no path leads"
    ),
    ("losses/smooth_ap.py", "smooth_ap.rows_loss", "Div to Mult", 0): (
        "a factor that all relevances have cancels"
    ),
    ("losses/smooth_ap.py", "smooth_ap.rows_loss", "condition negated", 0): (
        "all pairs are taken, of which others weigh nothing, or the positives alone"
    ),
    ("losses/smooth_ap.py", "smooth_ap", "Pow to Mult", 0): (
        "how many queries are looked at together changes no number"
    ),
    ("losses/smooth_ap.py", "smooth_ap", "constant + 1", 3): (
        "how many queries are looked at together changes no number"
    ),
    ("losses/soft_targets.py", "x_clr.rows_loss", "zeros_like to ones_like", 0): (
        "all pairs get a score but those that are ignored"
    ),
    ("losses/smooth_ap.py", "smooth_ap.rows_loss", "constant + 1", 14): ("0 is divided by it"),
    ("losses/levels.py", "supcon_siblings", "any to all", 0): (
        "the ranks are looked at more often, and say the same"
    ),
    ("losses/levels.py", "supcon_siblings", "constant + 1", 3): (
        "the ranks are looked at more often, and say the same"
    ),
    ("losses/products.py", "mm", "Is to IsNot", 0): (
        "both forms of the call are the same on a card; here a stand-in for one answers"
    ),
    ("losses/products.py", "products_in", "Or to And", 1): (
        "a switch that stands right is set once more, and put back"
    ),
    ("losses/rank_n_contrast.py", "rank_n_contrast", "False to True", 0): (
        "torch.cdist and logcumsumexp are computed in float32 under autocast anyway"
    ),
}

# What holds for several of one module: why -> (function, operator, occurrence) of each.
FOR_ONE_REASON: dict[tuple[str, str], tuple[tuple[str, str, int], ...]] = {
    ("ranks/measures.py", "the way for probabilities gives the same for 0 and 1, only slower"): (
        ("_indicators", "BitAnd to BitOr", 1),
        ("_indicators", "constant + 1", 4),
        ("_indicators", "constant + 1", 5),
        ("_indicators", "mask alone: left", 2),
        ("_indicators", "mask alone: right", 2),
    ),
    ("losses/blockwise/fused.py", "sorted or not, the numbers are the same"): (
        ("fused_loss", "GtE to Gt", 0),
        ("fused_loss", "Mult to Div", 0),
        ("fused_loss", "Or to And", 0),
    ),
    ("losses/blockwise/fused_kernels.py", "read by the kernel of gradients alone, which is told"): (
        ("Constants", "True to False", 0),
        ("Constants", "False to True", 0),
        ("Constants", "False to True", 1),
    ),
    ("losses/blockwise/fused_kernels.py", "both loops add the same; one of them is unrolled"): (
        ("_similarities", "condition negated", 0),
        ("_similarities", "LtE to Lt", 0),
        ("_similarities", "Mult to Div", 0),
        ("_similarities", "constant + 1", 1),
    ),
    (
        "losses/blockwise/fused_kernels.py",
        "the first ranks are of the form out, or all, or none: no bit is above one that is not set",
    ): (
        ("pass_1_sums", "mask alone: left", 0),
        ("pass_1_sums", "mask alone: left", 1),
        ("pass_2_each_positive", "mask alone: left", 0),
        ("pass_2_each_positive", "mask alone: left", 1),
        ("finish", "mask alone: left", 0),
        ("pass_2_each_positive", "mask alone: left", 3),
        ("pass_2_each_positive", "mask alone: left", 4),
        ("_slopes", "mask alone: left", 0),
    ),
    ("losses/blockwise/fused_kernels.py", "what is summed of other ranks is not read"): (
        ("pass_2_each_positive", "BitAnd to BitOr", 0),
        ("pass_2_each_positive", "mask alone: right", 0),
        ("pass_2_each_positive", "BitAnd to BitOr", 1),
        ("pass_2_each_positive", "mask alone: right", 1),
    ),
    ("losses/blockwise/fused_kernels.py", "what is read beyond the end goes nowhere"): (
        ("_ranks", "Lt to LtE", 2),
        ("_ranks", "constant + 1", 0),
        ("_ranks", "Lt to LtE", 3),
        ("_ranks", "constant + 1", 3),
        ("_ranks", "Lt to LtE", 4),
        ("_ranks", "constant + 1", 4),
        ("_ranks", "constant + 1", 5),
        ("_ranks", "Lt to LtE", 5),
        ("_ranks", "constant + 1", 10),
        ("_ranks", "Lt to LtE", 6),
        ("_ranks", "constant + 1", 11),
        ("_merged", "Lt to LtE", 0),
        ("_added", "Lt to LtE", 0),
        ("_added", "constant + 1", 0),
        ("_slopes", "Lt to LtE", 0),
        ("_slopes", "constant + 1", 0),
        ("_slopes", "Lt to LtE", 1),
        ("_slopes", "USub dropped", 0),
        ("_slopes", "Lt to LtE", 2),
        ("_slopes", "USub dropped", 1),
        ("_slopes", "Lt to LtE", 3),
        ("_slopes", "constant + 1", 4),
    ),
    ("losses/blockwise/fused.py", "room that is not written to, nor read"): (
        ("_Launch.terms", "constant + 1", 1),
        ("_Launch.terms", "constant + 1", 2),
        ("_Launch.terms", "constant + 1", 3),
    ),
    (
        "losses/blockwise/fused.py",
        "so many components at a time, or more: the numbers are the same",
    ): (
        ("_Launch._constants", "min to max", 0),
        ("_Launch._constants", "constant + 1", 1),
        ("_Launch._constants", "Sub to Add", 0),
    ),
    (
        "losses/blockwise/fused.py",
        "tiles without a positive add nothing, and may be passed over or not",
    ): (("_Launch._constants", "IsNot to Is", 1),),
    (
        "losses/blockwise/fused_kernels.py",
        "tiles without a positive add nothing, and may be passed over or not",
    ): (
        ("pass_2_each_positive", "Not dropped", 0),
        ("pass_2_each_positive", "Gt to GtE", 0),
    ),
    ("losses/metric_learning.py", "times 0"): (
        ("hierarchical_triplet", "Add to Sub", 1),
        ("hierarchical_triplet", "sum to mean", 1),
    ),
    ("metrics/set_intersection.py", "the whole run is the longest, and written last"): (
        ("_correct_tied_runs", "BitAnd to BitOr", 0),
        ("_correct_tied_runs", "mask alone: left", 0),
    ),
    ("metrics/set_intersection.py", "no place is filled"): (
        ("_correct_tied_runs", "mask alone: left", 1),
        ("_correct_tied_runs", "Lt to LtE", 1),
    ),
    ("metrics/set_intersection.py", "more tables are made, with the same numbers"): (
        ("_expected_minima", "constant + 1", 0),
        ("_expected_minima", "clamp dropped", 0),
        ("_expected_minima", "constant + 1", 1),
    ),
    ("metrics/set_intersection.py", "shorter runs are exact already, and stay so"): (
        ("_correct_tied_runs", "mask alone: right", 0),
        ("_correct_tied_runs", "Gt to GtE", 0),
        ("_correct_tied_runs", "Sub to Add", 0),
    ),
    (
        "losses/blockwise/fused_kernels.py",
        "a logarithm is LOW or far above: none lies near half of it",
    ): (
        ("finish", "Gt to GtE", 0),
        ("finish", "constant + 1", 5),
        ("finish", "Gt to GtE", 1),
        ("finish", "constant + 1", 12),
        ("finish", "Gt to GtE", 2),
        ("finish", "constant + 1", 13),
    ),
}
EQUIVALENT |= {
    (module, *place): why for (module, why), places in FOR_ONE_REASON.items() for place in places
}
