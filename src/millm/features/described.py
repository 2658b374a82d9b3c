"""What the engine says of a feature, remembered: a decoder row does not change while its SAE is attached."""

from collections import OrderedDict

from millm.engine.client import EngineClient
from millm.engine.messages import DescribeFeature, FeatureDescribed, SaeFacts

REMEMBERED = 256


class Described:
    """Lives on one event loop. The latest `REMEMBERED` that were asked for, by attachment and index."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], FeatureDescribed] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    async def of(self, engine: EngineClient, facts: SaeFacts, index: int) -> FeatureDescribed:
        """Raises MillmError."""
        key = (facts.id, index)
        found = self._known.get(key) or await _ask(engine, facts, index)
        self._known[key] = found
        self._known.move_to_end(key)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found


async def _ask(engine: EngineClient, facts: SaeFacts, index: int) -> FeatureDescribed:
    found = await engine.study(DescribeFeature(id=engine.new_id("study"), sae=facts.sae, index=index))
    assert isinstance(found, FeatureDescribed)
    return found
