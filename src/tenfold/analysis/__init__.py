"""Looking into networks: what a trained network does inside."""

from tenfold.analysis.collapse import Collapse, analyze_collapse
from tenfold.analysis.similarity import FeatureSimilarity, MapSimilarity

__all__ = ["Collapse", "FeatureSimilarity", "MapSimilarity", "analyze_collapse"]
