import abc
from datetime import datetime
from typing import ClassVar, Literal, Optional

from kitchen import analytics
from kitchen.analytics import Attribute, Event


class PlantEvent(Event, abc.ABC):
    attributes = (
        Attribute("plant_id", type=int),
        Attribute("note", required=False),
    )

    def watered(self, litres: int = 2) -> None:
        type = "not.the.type"  # a local name


class PlantGrewEvent(PlantEvent):
    type = "plant.grew"
    attributes = PlantEvent.attributes + (Attribute("height", type=int),)


class PlantDiedEvent(PlantEvent): type = 'plant.died'


@analytics.eventclass()
class HarvestEvent(analytics.Event):
    user_id: int | None = None
    organization_id: int
    _private: int = 3
    limit: ClassVar[int] = 5


@analytics.eventclass("harvest.begun")
class HarvestBegun(HarvestEvent):
    """Somebody began to harvest what grew in a garden."""

    tools: list[str]
    started_at: datetime
    weight: Optional[float]
    helper_name: "str | None"
    userAgent: str = ""


@eventclass(
    "harvest"
    ".ended"
)
class HarvestEnded(HarvestEvent):
    organization_id: str
    complete: bool = False
    how: Literal["by hand", 'by machine'] | None = None
    grade: Literal[1, 2]


class Harvester:
    type = "no.event"
    weight: int


analytics.register(PlantGrewEvent)
analytics.register(PlantDiedEvent)
