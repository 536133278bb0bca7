"""Which market a region belongs to: every provider is in exactly one, and all groups of an order lie in one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Markets:
    """Regions that have a market of their own; all others belong to the default one."""

    default: str = "world"
    by_region: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, default: str, text: str) -> "Markets":
        """Read ``region=market`` pairs separated by commas; ValueError for anything else, and for a region that stands twice."""
        by_region: dict[str, str] = {}
        for pair in filter(None, (part.strip() for part in text.split(","))):
            region, equals, market = (part.strip() for part in pair.partition("="))
            if not region or not equals or not market:
                raise ValueError(f"{pair!r} is not region=market")
            if region in by_region:
                raise ValueError(f"{region!r} stands twice: a region is in one market")
            by_region[region] = market
        return cls(default, by_region)

    def of_region(self, region: str) -> str:
        """The market of a provider in a region."""
        return self.by_region.get(region, self.default)

    def of_order(self, regions_by_group: Iterable[Sequence[str]]) -> str:
        """The market of an order whose groups name these regions, any where one names none.

        It is the one in which every group has a region: the first by name where there are several, the default where there is
        none, so that the order finds nobody and is told why.
        """
        reached = [{self.of_region(region) for region in regions} for regions in regions_by_group if regions]
        shared = set.intersection(*reached) if reached else set()
        return self.default if not shared or self.default in shared else min(shared)
