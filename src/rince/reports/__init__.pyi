from .plots import plot_classes as plot_classes
from .plots import plot_map as plot_map
from .plots import plot_over_time as plot_over_time
from .plots import plot_roc as plot_roc
from .plots import plot_similarities as plot_similarities
from .plots import plot_training as plot_training
