"""Caches feature descriptions, which do not change while an SAE is attached."""

from collections import OrderedDict

from millm.engine.client import EngineClient
from millm.engine.messages import DescribeFeature, FeatureDescribed, SaeFacts

MAX_CACHED_DESCRIPTIONS = 256


class FeatureDescriptionCache:
    """Least recently used descriptions are dropped. Lives on one event loop."""

    def __init__(self) -> None:
        self._cache: OrderedDict[tuple[str, int], FeatureDescribed] = OrderedDict()

    def __len__(self) -> int:
        return len(self._cache)

    async def get(self, engine: EngineClient, facts: SaeFacts, index: int) -> FeatureDescribed:
        """Raises MillmError."""
        key = (facts.id, index)
        description = self._cache.get(key)
        if description is None:
            command = DescribeFeature(id=engine.new_id("study"), sae=facts.sae, index=index)
            result = await engine.query_features(command)
            assert isinstance(result, FeatureDescribed)
            description = result
        self._cache[key] = description
        self._cache.move_to_end(key)
        if len(self._cache) > MAX_CACHED_DESCRIPTIONS:
            self._cache.popitem(last=False)
        return description
