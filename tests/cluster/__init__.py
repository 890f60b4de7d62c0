"""Two PostgreSQL servers, one of which follows the other, for tests of what a failover does."""

from tests.cluster.cluster import Cluster
from tests.cluster.node import Node

__all__ = ["Cluster", "Node"]
