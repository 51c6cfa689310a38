"""What losses take, by its public name: the definitions stand in :mod:`rince.core.pair_ranks`."""

from rince.core.pair_ranks import DenseRanks as DenseRanks
from rince.core.pair_ranks import IdentityRanks as IdentityRanks
from rince.core.pair_ranks import PairRanks as PairRanks
from rince.core.pair_ranks import TableRanks as TableRanks
