"""What the engine says of a feature, remembered: a decoder row does not change while its SAE is attached."""

from collections import OrderedDict

from millm.engine.client import EngineClient
from millm.engine.messages import DescribeFeature, FeatureDescribed, SaeFacts

MAX_CACHED_DESCRIPTIONS = 256


class FeatureDescriptionCache:
    """Lives on one event loop. The latest `REMEMBERED` that were asked for, by attachment and index."""

    def __init__(self) -> None:
        self._cache: OrderedDict[tuple[str, int], FeatureDescribed] = OrderedDict()

    def __len__(self) -> int:
        return len(self._cache)

    async def get(self, engine: EngineClient, facts: SaeFacts, index: int) -> FeatureDescribed:
        """Raises MillmError."""
        key = (facts.id, index)
        found = self._cache.get(key) or await _describe_feature(engine, facts, index)
        self._cache[key] = found
        self._cache.move_to_end(key)
        if len(self._cache) > MAX_CACHED_DESCRIPTIONS:
            self._cache.popitem(last=False)
        return found


async def _describe_feature(engine: EngineClient, facts: SaeFacts, index: int) -> FeatureDescribed:
    found = await engine.query_features(DescribeFeature(id=engine.new_id("study"), sae=facts.sae, index=index))
    assert isinstance(found, FeatureDescribed)
    return found
